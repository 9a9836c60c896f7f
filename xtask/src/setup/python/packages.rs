//! The packages beside each interpreter: what the tests' programs import, pinned for its version.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::interpreters::Interpreter;
use crate::step;
use crate::workspace::Workspace;

/// Supports every version from 3.7 on; the second is what it needs before 3.11.
const REDIS_PY: [&str; 2] = ["redis==5.0.8", "async-timeout==4.0.3"];

/// The newest of each that has a wheel for the version.
fn requirements(minor: u32) -> Vec<&'static str> {
    let loops: [&str; 3] = match minor {
        ..=8 => ["gevent==24.2.1", "greenlet==3.1.1", "uvloop==0.21.0"],
        9 => ["gevent==25.9.1", "greenlet==3.2.5", "uvloop==0.23.0"],
        _ => ["gevent==26.9.0", "greenlet==3.5.6", "uvloop==0.23.0"],
    };
    REDIS_PY.into_iter().chain(loops).collect()
}

/// One folder an interpreter in `pythons`: the program, and its packages. Returns for how many
/// something was installed.
pub(super) fn ensure(workspace: &Workspace, found: &[Interpreter]) -> Result<usize> {
    let pythons = workspace.pythons();
    forget_others(&pythons, found)?;
    let mut installed = 0;
    for python in found {
        let home = pythons.join(&python.name);
        let wanted = requirements(python.minor).join(" ");
        // Written last: a folder whose installation was interrupted has none.
        let marker = home.join("requirements.txt");
        if !fs::read_to_string(&marker).is_ok_and(|has| has == wanted) {
            install(workspace, python, &home.join("site-packages"))?;
            fs::write(&marker, wanted)
                .with_context(|| format!("failed to write {}", marker.display()))?;
            installed += 1;
        }
        link(&python.program, &home.join("python"))?;
    }
    Ok(installed)
}

/// An interpreter that was removed must not be looked for by the tests.
fn forget_others(pythons: &Path, found: &[Interpreter]) -> Result<()> {
    for entry in fs::read_dir(pythons).into_iter().flatten().flatten() {
        if found.iter().all(|python| entry.file_name() != *python.name) {
            fs::remove_dir_all(entry.path())
                .with_context(|| format!("failed to remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// By one pip for all: not every interpreter has one of its own.
fn install(workspace: &Workspace, python: &Interpreter, into: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(into);
    let mut pip = Command::new(workspace.python());
    pip.args(["-m", "pip", "install", "--quiet", "--no-input"]);
    pip.args(["--disable-pip-version-check", "--retries", "3"]);
    pip.args(["--no-compile", "--only-binary", ":all:"]);
    pip.args(["--python-version", &format!("3.{}", python.minor)]);
    pip.arg("--target").arg(into);
    pip.args(requirements(python.minor));
    step::run(&format!("install packages for {}", python.name), &mut pip)?;
    Ok(())
}

fn link(program: &Path, link: &Path) -> Result<()> {
    let _ = fs::remove_file(link);
    symlink(program, link).with_context(|| format!("failed to link {}", link.display()))
}
