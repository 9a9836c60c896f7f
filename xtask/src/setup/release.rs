//! Another Debian release's packages, run from a folder with that release's own C library: versions
//! that this release has not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::Wording;
use crate::debian::{Archive, Mirrors, run};

/// Where its packages expect to be, below the folder.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";

/// Packages of one release in a folder of the cache.
pub(super) struct Release {
    pub(super) suite: &'static str,
    pub(super) home: PathBuf,
}

impl Release {
    /// Unpacks `packages` and what they need, if they are not there. False on a machine without
    /// apt, or of another architecture: it tests what it has.
    pub(super) fn ensure(&self, item: &str, packages: &[String], wording: Wording) -> Result<bool> {
        let Some(mirrors) = mirrors() else {
            wording.found(item, "none: they are amd64 packages of Debian");
            return Ok(false);
        };
        // Written last: a folder whose unpacking was interrupted has none.
        let marker = self.home.join("packages.txt");
        if fs::read_to_string(&marker).is_ok_and(|unpacked| unpacked == packages.join(" ")) {
            return Ok(true);
        }
        let began = Instant::now();
        self.unpack(&mirrors, packages)?;
        fs::write(&marker, packages.join(" "))
            .with_context(|| format!("failed to write {}", marker.display()))?;
        wording.did(
            item,
            &format!(
                "unpacked in {} s, kept in {}",
                began.elapsed().as_secs(),
                self.home.display()
            ),
        );
        Ok(true)
    }

    /// Where the packages stand as if it were `/`.
    pub(super) fn root(&self) -> PathBuf {
        self.home.join("root")
    }

    /// Unpacked, never installed: this machine keeps its release.
    fn unpack(&self, mirrors: &Mirrors, packages: &[String]) -> Result<()> {
        let source = Archive::source(&mirrors.main, self.suite);
        let archive = Archive::open(&self.home.join("apt"), &source)?;
        let root = self.root();
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root)
            .with_context(|| format!("failed to create {}", root.display()))?;
        for package in archive.download_with_dependencies(packages)? {
            run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&root))
                .with_context(|| format!("failed to unpack {}", package.display()))?;
            fs::remove_file(&package)
                .with_context(|| format!("failed to remove {}", package.display()))?;
        }
        Ok(())
    }

    /// A script in place of `/usr/bin/PROGRAM`, at `starter`: the loader that the program asks for
    /// is this release's. `set` are the variables that tell it where it stands.
    pub(super) fn starter(
        &self,
        program: &str,
        set: &[(&str, String)],
        starter: &Path,
    ) -> Result<()> {
        let exports: String = set
            .iter()
            .map(|(name, value)| format!("export {name}='{value}'\n"))
            .collect();
        let text = format!(
            "#!/bin/sh\n\
             # Written by cargo xtask setup.\n\
             {exports}\
             exec '{root}/{LOADER}' --library-path '{root}/{LIBRARIES}' --argv0 \"$0\" \\\n    \
             '{root}/usr/bin/{program}' \"$@\"\n",
            root = self.root().display()
        );
        fs::write(starter, text)
            .with_context(|| format!("failed to write {}", starter.display()))?;
        fs::set_permissions(starter, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("failed to make {} executable", starter.display()))
    }
}

fn mirrors() -> Option<Mirrors> {
    if !cfg!(target_arch = "x86_64") {
        return None;
    }
    Mirrors::of_this_machine().ok()
}
