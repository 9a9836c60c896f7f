//! libFuzzer with the stable compiler: what it needs of it are passes of LLVM, asked for by name.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;
use crate::{build, cargo, step};

/// Coverage counters and comparisons for libFuzzer, checks that a release leaves out.
const INSTRUMENTS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions=yes",
    "-Coverflow-checks=yes",
];
/// Set where this program is called as the compiler, see [`wrap`].
const WRAPPED: &str = "CONNLEAK_FUZZ_WRAPPED";

/// Has cargo's compiler instrument the crate under test, and nothing else: the dependencies stay
/// those of the release build. What of them is generic is compiled with our crate, and led too.
pub(crate) fn wrap() -> Option<ExitCode> {
    env::var_os(WRAPPED)?;
    let mut arguments = env::args_os().skip(1);
    let mut compiler = Command::new(arguments.next()?);
    let arguments: Vec<_> = arguments.collect();
    let is_under_test = arguments
        .windows(2)
        .any(|pair| pair[0] == "--crate-name" && pair[1] == "connleak");
    compiler.args(&arguments);
    if is_under_test {
        compiler.args(INSTRUMENTS);
    }
    let status = compiler.status().ok()?;
    Some(ExitCode::from(u8::from(!status.success())))
}

pub(super) fn build_fuzzer(workspace: &Workspace) -> Result<PathBuf> {
    build::kernel_object(workspace)?;
    let xtask = env::current_exe().context("failed to find xtask itself")?;
    let mut command = cargo::command(workspace);
    command.args(["build", "--release", "--bin", "fuzz"]);
    // With those beside it the dependencies have the features of the release build.
    for package in ["connleak-fuzz", "connleak-tests", "tracer-user"] {
        command.args(["--package", package]);
    }
    command
        .args(["--features", "connleak-fuzz/engine"])
        .env("RUSTC_WORKSPACE_WRAPPER", xtask)
        .env(WRAPPED, "1");
    step::run("build the fuzzer", &mut command)?;
    Ok(workspace.program("fuzz"))
}
