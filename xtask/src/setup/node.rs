//! Node's Redis clients, for the table of languages.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Wording;
use crate::step;
use crate::workspace::Workspace;

/// Pinned: a test that fails must fail for a reason in this repository. The newest that run on
/// Debian 12's Node 18.
const PACKAGES: [&str; 2] = ["redis@5.9.0", "ioredis@5.9.2"];

pub(super) fn ensure(workspace: &Workspace, wording: Wording) -> Result<()> {
    let packages = PACKAGES.join(" ");
    let dir = workspace.cache.join("node");
    // Written last: an installation that was interrupted has none.
    let marker = dir.join("connleak-packages.txt");
    if fs::read_to_string(&marker).is_ok_and(|found| found == packages) {
        wording.found("node", &format!("{} with {packages}", dir.display()));
        return Ok(());
    }
    fs::create_dir_all(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
    let mut install = Command::new("npm");
    install.args(["install", "--no-audit", "--no-fund", "--no-save"]);
    install.args(["--ignore-scripts", "--prefix"]).arg(&dir);
    install.args(PACKAGES);
    let took = step::run("install Node's Redis clients", &mut install)?.elapsed;
    fs::write(&marker, &packages)
        .with_context(|| format!("failed to write {}", marker.display()))?;
    wording.did(
        "node",
        &format!(
            "{packages} installed in {} s, kept in {}",
            took.as_secs(),
            dir.display()
        ),
    );
    Ok(())
}
