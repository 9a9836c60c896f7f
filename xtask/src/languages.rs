//! `cargo xtask languages`: the README's table of languages, written from what the reports say.

use std::process::ExitCode;

use anyhow::Result;

use crate::setup::{self, Scope, Wording};
use crate::workspace::Workspace;
use crate::{build, cargo, step};

pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    setup::run(workspace, Scope::Tests, Wording::Changes)?;
    let connleak = build::run(workspace)?;
    let mut command = cargo::command(workspace);
    command.args(["test", "--release", "-p", "connleak-tests"]);
    command.args(["--test", "languages"]);
    command
        .env("CONNLEAK_BIN", &connleak)
        .env("CONNLEAK_PYTHON", workspace.python())
        .env("CONNLEAK_WRITE_TABLE", "1");
    step::run("run every language's client", &mut command)?;
    println!("languages: README.md says what the reports showed");
    Ok(ExitCode::SUCCESS)
}
