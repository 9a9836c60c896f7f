//! `cargo xtask bench`: figures of connleak on this machine, alone and beside its peers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::setup::{self, Scope, Wording};
use crate::workspace::Workspace;
use crate::{build, cargo};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only the benchmark of this name
    name: Option<String>,
    /// Arguments of the benchmark, after `--`: of `peers` the workloads, `--json`, `--check`
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    setup::run(workspace, Scope::Bench, Wording::Changes)?;
    let connleak = installed(workspace, &build::run(workspace)?)?;
    let mut command = cargo::command(workspace);
    command
        .args(["bench", "--package", "connleak-tests", "--bench"])
        .arg(args.name.as_deref().unwrap_or("*"))
        .env("CONNLEAK_BIN", &connleak)
        .env("CONNLEAK_PYTHON", workspace.python())
        .env("CONNLEAK_PYTHONS", workspace.pythons());
    if !args.arguments.is_empty() {
        command.arg("--").args(&args.arguments);
    }
    let status = command.status().context("failed to start cargo bench")?;
    if !status.success() {
        bail!("failed to run the benchmarks: {status}");
    }
    Ok(())
}

/// A copy, as a package installs one, and as the peers are. A linker writes a program here and there,
/// which scatters its pages over the memory that caches the file: where the hypervisor keeps page
/// tables of its own, such a program took up to twice the CPU time.
fn installed(workspace: &Workspace, program: &Path) -> Result<PathBuf> {
    let dir = workspace.target.join("bench");
    fs::create_dir_all(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
    let copy = dir.join("connleak");
    fs::copy(program, &copy).with_context(|| format!("failed to write {}", copy.display()))?;
    Ok(copy)
}
