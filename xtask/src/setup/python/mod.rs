//! The Pythons of the tests: an environment with the clients, and every CPython this machine can
//! have, each with the packages that its version takes.

mod forky;
mod interpreters;
mod packages;
mod venv;

use anyhow::Result;

use super::Wording;
use crate::workspace::Workspace;

pub(super) fn ensure(workspace: &Workspace, wording: Wording) -> Result<()> {
    venv::ensure(workspace, wording)?;
    let mut found = interpreters::of_this_machine();
    found.extend(forky::ensure(workspace, wording)?);
    let installed = packages::ensure(workspace, &found)?;
    let names: Vec<&str> = found.iter().map(|python| python.name.as_str()).collect();
    let names = names.join(" ");
    match installed {
        0 => wording.found("pythons", &names),
        _ => wording.did(
            "pythons",
            &format!("{names}; packages installed for {installed}"),
        ),
    }
    Ok(())
}
