//! bpf-linker: built once into the cache directory, with the LLVM the kernel side's compiler uses.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::toolchain::Compiler;
use super::{Wording, output_of, version_of};
use crate::workspace::{Workspace, which};
use crate::{cargo, step};

const VERSION: &str = "0.13.0";
const DEBIAN_LLVM: (&str, u32) = ("/usr/lib/llvm-22", 22);
/// The LLVM majors this version of bpf-linker can be built with, best first.
const LLVM_MAJORS: [u32; 3] = [23, 22, 21];

/// The bpf-linker that fits the compiler: its LLVM must read the compiler's bitcode.
pub(crate) fn find(workspace: &Workspace, compiler: &Compiler) -> Option<PathBuf> {
    let cached = workspace.cache.join("bin/bpf-linker");
    if version_of(&cached).as_deref() == Some(VERSION) {
        return Some(cached);
    }
    match compiler {
        // Whatever LLVM a bpf-linker on PATH has, nobody knows whether it is as new as Debian's.
        Compiler::Debian { .. } => None,
        Compiler::Nightly => which("bpf-linker"),
    }
}

pub(super) fn ensure(workspace: &Workspace, wording: Wording) -> Result<()> {
    let compiler = Compiler::find().context("failed to find a compiler for the BPF target")?;
    if let Some(linker) = find(workspace, &compiler) {
        let version = version_of(&linker).unwrap_or_default();
        wording.found("bpf-linker", &format!("{} {version}", linker.display()));
        return Ok(());
    }
    let (prefix, major) = match compiler {
        Compiler::Debian { .. } => (PathBuf::from(DEBIAN_LLVM.0), DEBIAN_LLVM.1),
        Compiler::Nightly => newest_llvm()?,
    };
    println!("setup: building         bpf-linker {VERSION}, once (about 2 min)");
    let mut install = cargo::command(workspace);
    install.env("LLVM_PREFIX", &prefix);
    // Its build must not share the workspace's target directory, nor leave one behind.
    install.env_remove("CARGO_TARGET_DIR");
    install.args(["install", "bpf-linker", "--version", VERSION, "--locked"]);
    install.args(["--no-default-features", "--features"]);
    install.arg(format!("llvm-{major}"));
    install.arg("--force").arg("--root").arg(&workspace.cache);
    let done = step::run("build bpf-linker", &mut install)?;
    wording.did(
        "bpf-linker",
        &format!(
            "{VERSION} with LLVM {major} built in {} s, kept in {}",
            done.elapsed.as_secs(),
            workspace.cache.join("bin").display()
        ),
    );
    Ok(())
}

fn newest_llvm() -> Result<(PathBuf, u32)> {
    for major in LLVM_MAJORS {
        for name in [format!("llvm-config-{major}"), "llvm-config".to_owned()] {
            let Some(config) = which(&name) else { continue };
            if llvm_says(&config, "--version").is_some_and(|says| major_of(&says) == Some(major))
                && let Some(prefix) = llvm_says(&config, "--prefix")
            {
                return Ok((prefix.into(), major));
            }
        }
    }
    bail!(
        "failed to find LLVM {} to {} for bpf-linker: install its development package, \
         or a ready-made bpf-linker on PATH",
        LLVM_MAJORS[2],
        LLVM_MAJORS[0]
    )
}

fn llvm_says(config: &Path, option: &str) -> Option<String> {
    output_of(Command::new(config).arg(option)).ok()
}

fn major_of(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}
