//! `cargo xtask run -- ARGS`: connleak, freshly built, as root.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::build;
use crate::workspace::{Workspace, is_root, which};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Arguments of connleak, after `--`
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let connleak = build::run(workspace)?;
    let error = as_root(&connleak).args(&args.arguments).exec();
    Err(error).with_context(|| format!("failed to run {}", connleak.display()))
}

/// Tracing needs root; without sudo connleak itself says so best.
pub(crate) fn as_root(program: &Path) -> Command {
    match which("sudo") {
        Some(sudo) if !is_root() => {
            let mut command = Command::new(sudo);
            command.arg("--").arg(program);
            command
        }
        _ => Command::new(program),
    }
}
