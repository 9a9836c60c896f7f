//! The compiler of the kernel side: Debian's with its precompiled `core`, or rustup's nightly.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::apt::Debian;
use super::{Wording, linker, output_of, version_of};
use crate::workspace::{Workspace, which};
use crate::{cargo, step};

/// Where rustc-web puts its compiler; the one on PATH is rustup's more often than not.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Which compiler builds for the BPF target.
pub(crate) enum Compiler {
    /// Finds a precompiled `core` in its own sysroot.
    Debian { rustc: PathBuf },
    /// Compiles `core` itself, from rust-src.
    Nightly,
}

/// Everything that turns tracer-ebpf into an object.
pub(crate) struct KernelToolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: PathBuf,
}

impl KernelToolchain {
    pub(crate) fn find(workspace: &Workspace) -> Result<Self> {
        let remedy = "run: cargo xtask setup";
        let compiler = Compiler::find()
            .with_context(|| format!("failed to find a compiler for the BPF target; {remedy}"))?;
        let linker = linker::find(workspace, &compiler)
            .with_context(|| format!("failed to find bpf-linker; {remedy}"))?;
        Ok(Self { compiler, linker })
    }
}

impl Compiler {
    pub(crate) fn find() -> Option<Self> {
        let rustc = PathBuf::from(DEBIAN_RUSTC);
        if has_bpf_core(&rustc) {
            return Some(Self::Debian { rustc });
        }
        nightly_source().map(|_| Self::Nightly)
    }

    fn describe(&self) -> String {
        match self {
            Self::Debian { rustc } => format!(
                "{} {}, core for the BPF target precompiled",
                rustc.display(),
                version_of(rustc).unwrap_or_default()
            ),
            Self::Nightly => "rustup's nightly with rust-src".to_owned(),
        }
    }
}

pub(super) fn ensure(
    workspace: &Workspace,
    debian: Option<&Debian>,
    wording: Wording,
) -> Result<()> {
    if let Some(compiler) = Compiler::find() {
        wording.found("kernel compiler", &compiler.describe());
        return Ok(());
    }
    if debian.is_some_and(|debian| debian.has_bpf_core) {
        bail!(
            "failed to find core for bpfel-unknown-none in {DEBIAN_RUSTC}'s sysroot; \
             run: apt-get install --reinstall rustc-web libstd-rust-web-dev-bpf"
        );
    }
    let Some(rustup) = which("rustup") else {
        bail!("failed to find rustup: install it, the kernel side needs its nightly");
    };
    let mut install = Command::new(rustup);
    cargo::scrub(&mut install, workspace);
    install.args(["toolchain", "install", "nightly", "--profile", "minimal"]);
    install.args(["--component", "rust-src"]);
    let done = step::run("install rustup's nightly", &mut install)?;
    wording.did(
        "kernel compiler",
        &format!("rustup's nightly installed in {} s", done.elapsed.as_secs()),
    );
    Ok(())
}

fn has_bpf_core(rustc: &Path) -> bool {
    let Ok(sysroot) = output_of(Command::new(rustc).args(["--print", "sysroot"])) else {
        return false;
    };
    let libraries = Path::new(&sysroot).join("lib/rustlib/bpfel-unknown-none/lib");
    libraries.read_dir().is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

fn nightly_source() -> Option<PathBuf> {
    let mut command = Command::new(which("rustup")?);
    command.env_remove("RUSTUP_TOOLCHAIN");
    command.args(["run", "nightly", "rustc", "--print", "sysroot"]);
    let sysroot = output_of(&mut command).ok()?;
    let core = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core");
    core.is_dir().then_some(core)
}
