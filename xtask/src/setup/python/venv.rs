//! The Python environment of the tests: the clients, and the validators of two report formats.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::setup::Wording;
use crate::step;
use crate::workspace::{Workspace, which};

/// Pinned: a test that fails must fail for a reason in this repository.
const REQUIREMENTS: &str =
    "redis==8.1.0 celery==5.6.3 jsonschema==4.23.0 prometheus-client==0.21.1";

pub(super) fn ensure(workspace: &Workspace, wording: Wording) -> Result<()> {
    let python = workspace.python();
    let venv = workspace.cache.join("venv");
    // Written last: an environment whose installation was interrupted has none.
    let marker = venv.join("connleak-requirements.txt");
    let wanted = format!("{REQUIREMENTS} {VALIDATOR}");
    let fits = fs::read_to_string(&marker).is_ok_and(|found| found == wanted);
    if fits && imports_clients(&python) {
        wording.found("python", &format!("{} with {wanted}", python.display()));
        return Ok(());
    }
    let machine = machine_python().context("failed to find python3: install it")?;
    let mut create = Command::new(&machine);
    create.args(["-m", "venv", "--clear"]).arg(&venv);
    let mut took = step::run("create the Python environment", &mut create)?.elapsed;
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--no-input"]);
    install.args(["--disable-pip-version-check", "--retries", "3"]);
    install.args(wanted.split(' '));
    took += step::run("install the Python clients", &mut install)?.elapsed;
    fs::write(&marker, &wanted).with_context(|| format!("failed to write {}", marker.display()))?;
    wording.did(
        "python",
        &format!(
            "{wanted} installed in {} s for {}, kept in {}",
            took.as_secs(),
            machine.display(),
            venv.display()
        ),
    );
    Ok(())
}

/// Brings the schemas of Kubernetes along.
const VALIDATOR: &str = "kubernetes-validate==1.37.0";

/// The distribution's first: a shim of a version manager is not what services run on.
fn machine_python() -> Option<PathBuf> {
    let distribution = PathBuf::from("/usr/bin/python3");
    if distribution.is_file() {
        return Some(distribution);
    }
    which("python3")
}

fn imports_clients(python: &Path) -> bool {
    Command::new(python)
        .args(["-c", "import redis, celery, jsonschema, prometheus_client"])
        .output()
        .is_ok_and(|output| output.status.success())
}
