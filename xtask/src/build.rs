//! `cargo xtask build`: the kernel object first, then the programs that carry it.

use std::env::consts::ARCH;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::setup::toolchain::{Compiler, KernelToolchain};
use crate::workspace::Workspace;
use crate::{cargo, step};

/// Separates flags in CARGO_ENCODED_RUSTFLAGS.
const FLAG_SEPARATOR: &str = "\x1f";

/// Builds all there is to run and returns the path of connleak.
pub(crate) fn run(workspace: &Workspace) -> Result<PathBuf> {
    kernel_object(workspace)?;
    let done = step::run("build connleak", &mut programs(workspace))?;
    repeat_warnings(&done.output);
    Ok(workspace.program("connleak"))
}

/// connleak and the test clients in one build, so that both share one set of features.
fn programs(workspace: &Workspace) -> Command {
    let mut command = cargo::command(workspace);
    command.args(["build", "--release", "--bins"]);
    command.args(["-p", "tracer-user", "-p", "connleak-tests"]);
    command
}

/// Builds the kernel side and returns what the compiler said about it.
pub(crate) fn kernel_object(workspace: &Workspace) -> Result<String> {
    let toolchain = KernelToolchain::find(workspace)?;
    let mut command = kernel_command(workspace, &toolchain, "build");
    let done = step::run("build the kernel side", &mut command)?;
    repeat_warnings(&done.output);
    keep_if_changed(workspace)?;
    Ok(done.output)
}

/// A cargo that does `subcommand` to the kernel side, for the BPF target.
pub(crate) fn kernel_command(
    workspace: &Workspace,
    toolchain: &KernelToolchain,
    subcommand: &str,
) -> Command {
    let mut command = match &toolchain.compiler {
        Compiler::Debian { rustc } => {
            let mut command = cargo::command(workspace);
            // aya-ebpf uses asm_experimental_arch, which a stable compiler refuses otherwise.
            command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
            command
        }
        Compiler::Nightly => {
            let mut command = Command::new("rustup");
            command.current_dir(&workspace.root);
            cargo::scrub(&mut command, workspace);
            command.env_remove("RUSTUP_TOOLCHAIN");
            command.args(["run", "nightly", "cargo"]);
            command.args(["-Z", "build-std=core"]);
            command
        }
    };
    let flags = [
        format!("--cfg=bpf_target_arch=\"{ARCH}\""),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", toolchain.linker.display()),
    ];
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join(FLAG_SEPARATOR));
    // A target directory of its own: other flags and another compiler would evict each other.
    command.env("CARGO_TARGET_DIR", workspace.root.join("target/bpf"));
    command.env("CARGO_BUILD_TARGET", "bpfel-unknown-none");
    // Incremental builds are cut into more units: other code, and other verified instructions.
    command.env("CARGO_INCREMENTAL", "0");
    command.args([subcommand, "--release"]);
    command.args(["-p", "tracer-ebpf", "--bin", "connleak-bpf"]);
    command
}

/// A newer timestamp alone would rebuild connleak, which carries the object.
fn keep_if_changed(workspace: &Workspace) -> Result<()> {
    let built = workspace
        .root
        .join("target/bpf/bpfel-unknown-none/release/connleak-bpf");
    let kept = workspace.kernel_object();
    let new = fs::read(&built).with_context(|| format!("failed to read {}", built.display()))?;
    ensure!(
        new.starts_with(b"\x7fELF"),
        "failed to build the kernel side: {} is not an ELF object; is its linker bpf-linker?",
        built.display()
    );
    if fs::read(&kept).is_ok_and(|old| old == new) {
        return Ok(());
    }
    fs::write(&kept, new).with_context(|| format!("failed to write {}", kept.display()))
}

/// A build that succeeds keeps its output back; its warnings are the part somebody must see.
fn repeat_warnings(output: &str) {
    let starts = |line: &str| line.starts_with("warning");
    let mut shown = false;
    for line in output.lines() {
        shown = starts(line) || (shown && !line.trim_start().starts_with("Compiling"));
        if shown && !line.trim_start().starts_with("Finished") {
            eprintln!("{line}");
        }
    }
}
