//! `cargo xtask lint`: formatting, clippy on both sides, the import arrows, long files.

mod arrows;
mod source;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::setup::toolchain::{Compiler, KernelToolchain};
use crate::setup::{self, Scope, Wording};
use crate::workspace::Workspace;
use crate::{build, cargo, step};

/// STYLE: past this, a file is asked for its second reason to change.
const LONG_FILE_LINES: usize = 400;
/// Debian's own, of the same release as its rustc: clippy must understand the compiler's metadata.
const DEBIAN_CLIPPY: &str = "/usr/bin/clippy-driver";

pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    let began = Instant::now();
    setup::run(workspace, Scope::Lint, Wording::Changes)?;
    let mut failed = Vec::new();
    let mut check = |name: &'static str, passed: bool| {
        println!("lint: {name:<12} {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(name);
        }
    };

    check("format", format(workspace)?);
    check("arrows", arrows(workspace)?);
    // Before clippy: tracer-user's build script wants the object.
    build::kernel_object(workspace)?;
    check("kernel side", kernel_clippy(workspace)?);
    check("clippy", clippy(workspace)?);
    note_long_files(workspace)?;

    println!(
        "lint: {} in {} s",
        if failed.is_empty() {
            "ok".to_owned()
        } else {
            format!("FAILED: {}", failed.join(", "))
        },
        began.elapsed().as_secs()
    );
    Ok(ExitCode::from(u8::from(!failed.is_empty())))
}

fn format(workspace: &Workspace) -> Result<bool> {
    let mut command = cargo::command(workspace);
    passes(
        "check the format",
        command.args(["fmt", "--all", "--check"]),
    )
}

fn clippy(workspace: &Workspace) -> Result<bool> {
    let mut command = cargo::command(workspace);
    command.args(["clippy", "--workspace", "--all-targets", "--", "-Dwarnings"]);
    passes("run clippy", &mut command)
}

fn kernel_clippy(workspace: &Workspace) -> Result<bool> {
    let toolchain = KernelToolchain::find(workspace)?;
    let driver = Path::new(DEBIAN_CLIPPY);
    if matches!(toolchain.compiler, Compiler::Debian { .. }) && driver.is_file() {
        let mut command = build::kernel_command(workspace, &toolchain, "check");
        command.env("RUSTC_WORKSPACE_WRAPPER", driver);
        // What `cargo clippy -- -Dwarnings` passes its driver.
        command.env("CLIPPY_ARGS", "-Dwarnings__CLIPPY_HACKERY__");
        return passes("run clippy on the kernel side", &mut command);
    }
    // No clippy of that compiler here: its own warnings at least. cargo repeats them when
    // nothing had to be compiled.
    let said = build::kernel_object(workspace)?;
    Ok(!said.lines().any(|line| line.starts_with("warning")))
}

fn passes(label: &str, command: &mut Command) -> Result<bool> {
    let (status, done) = step::watch(label, command)?;
    if !status.success() {
        let noise = |line: &str| {
            ["Compiling ", "Checking ", "Downloaded ", "Blocking "]
                .iter()
                .any(|word| line.trim_start().starts_with(word))
        };
        for line in done.output.lines().filter(|line| !noise(line)) {
            eprintln!("{line}");
        }
    }
    Ok(status.success())
}

fn arrows(workspace: &Workspace) -> Result<bool> {
    let violations = arrows::check(&workspace.root)?;
    for violation in &violations {
        eprintln!("{violation}");
    }
    Ok(violations.is_empty())
}

fn note_long_files(workspace: &Workspace) -> Result<()> {
    for member in ["tracer-ebpf", "tracer-user", "xtask", "tests"] {
        for path in rust_files(&workspace.root.join(member))? {
            let lines = read(&path)?.lines().count();
            if lines > LONG_FILE_LINES {
                let path = path.strip_prefix(&workspace.root).unwrap_or(&path);
                println!("lint: note: {} has {lines} lines", path.display());
            }
        }
    }
    Ok(())
}

/// Every Rust source below a directory, in a fixed order.
fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let entries =
            fs::read_dir(&dir).with_context(|| format!("failed to read {}", dir.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    dirs.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))
}
