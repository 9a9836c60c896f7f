//! The Pythons of Debian's next release, run from a folder with that release's own C library:
//! versions that neither this release nor pyenv has.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::interpreters::Interpreter;
use crate::debian::{Archive, Mirrors, run};
use crate::setup::Wording;
use crate::workspace::Workspace;

const SUITE: &str = "forky";
const MINORS: [u32; 3] = [13, 14, 15];
/// Where its packages expect to be, below the folder.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";

pub(super) fn ensure(workspace: &Workspace, wording: Wording) -> Result<Vec<Interpreter>> {
    let home = workspace.cache.join("python-forky");
    // A machine without apt, or of another architecture, tests the Pythons that it has.
    let Some(mirrors) = mirrors() else {
        wording.found(
            "debian's pythons",
            "none: they are amd64 packages of Debian",
        );
        return Ok(Vec::new());
    };
    let packages = packages();
    // Written last: a folder whose unpacking was interrupted has none.
    let marker = home.join("packages.txt");
    if !fs::read_to_string(&marker).is_ok_and(|unpacked| unpacked == packages.join(" ")) {
        let began = Instant::now();
        unpack(&mirrors, &home, &packages)?;
        fs::write(&marker, packages.join(" "))
            .with_context(|| format!("failed to write {}", marker.display()))?;
        wording.did(
            "debian's pythons",
            &format!(
                "unpacked in {} s, kept in {}",
                began.elapsed().as_secs(),
                home.display()
            ),
        );
    }
    MINORS
        .into_iter()
        .map(|minor| {
            Ok(Interpreter {
                name: format!("{SUITE}-3.{minor}"),
                minor,
                program: starter(&home, minor)?,
            })
        })
        .collect()
}

fn mirrors() -> Option<Mirrors> {
    if !cfg!(target_arch = "x86_64") {
        return None;
    }
    Mirrors::of_this_machine().ok()
}

fn packages() -> Vec<String> {
    let of = |minor| {
        [
            format!("python3.{minor}-minimal"),
            format!("libpython3.{minor}-stdlib"),
        ]
    };
    MINORS.into_iter().flat_map(of).collect()
}

/// Unpacked, never installed: this machine keeps its release.
fn unpack(mirrors: &Mirrors, home: &Path, packages: &[String]) -> Result<()> {
    let archive = Archive::open(&home.join("apt"), &Archive::source(&mirrors.main, SUITE))?;
    let root = home.join("root");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(&root).with_context(|| format!("failed to create {}", root.display()))?;
    for package in archive.download_with_dependencies(packages)? {
        run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&root))
            .with_context(|| format!("failed to unpack {}", package.display()))?;
        fs::remove_file(&package)
            .with_context(|| format!("failed to remove {}", package.display()))?;
    }
    Ok(())
}

/// A script in place of the program: the loader that the program asks for is this release's.
fn starter(home: &Path, minor: u32) -> Result<std::path::PathBuf> {
    let root = home.join("root");
    let starter = home.join(format!("python3.{minor}"));
    let text = format!(
        "#!/bin/sh\n\
         # Written by cargo xtask setup.\n\
         export PYTHONHOME='{root}/usr'\n\
         exec '{root}/{LOADER}' --library-path '{root}/{LIBRARIES}' --argv0 \"$0\" \\\n    \
         '{root}/usr/bin/python3.{minor}' \"$@\"\n",
        root = root.display()
    );
    fs::write(&starter, text).with_context(|| format!("failed to write {}", starter.display()))?;
    fs::set_permissions(&starter, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("failed to make {} executable", starter.display()))?;
    Ok(starter)
}
