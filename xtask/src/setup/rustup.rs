//! rustfmt and clippy of the toolchain that runs us.

use std::process::Command;

use anyhow::{Result, bail};

use super::{Wording, output_of};
use crate::workspace::{Workspace, which};
use crate::{cargo, step};

pub(super) fn ensure_lints(workspace: &Workspace, wording: Wording) -> Result<()> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        match output_of(cargo::command(workspace).args([subcommand, "--version"])) {
            Ok(version) => found.push(version),
            Err(_) => missing.push(component),
        }
    }
    if missing.is_empty() {
        wording.found("lints", &found.join(", "));
        return Ok(());
    }
    let Some(rustup) = which("rustup") else {
        bail!("failed to find {}: install it", missing.join(" and "));
    };
    let mut add = Command::new(rustup);
    add.current_dir(&workspace.root);
    cargo::scrub(&mut add, workspace);
    add.args(["component", "add"]).args(&missing);
    step::run("install rustfmt and clippy", &mut add)?;
    wording.did("lints", &format!("{} installed", missing.join(", ")));
    Ok(())
}
