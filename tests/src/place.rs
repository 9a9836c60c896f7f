//! Where the programs under test and the clients lie, on the host and inside a virtual machine.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// The `connleak` binary: `CONNLEAK_BIN`, else the workspace's release build.
pub fn connleak() -> Result<PathBuf> {
    let path = match std::env::var_os("CONNLEAK_BIN") {
        Some(path) => PathBuf::from(path),
        None => target_dir()?.join("release/connleak"),
    };
    if !path.exists() {
        bail!(
            "failed to find connleak at {}; run `cargo xtask build`",
            path.display()
        );
    }
    Ok(path)
}

/// The compiled or copied client `name`: from `CONNLEAK_CLIENTS`, else built or found in the
/// workspace.
pub fn client(name: &str) -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("CONNLEAK_CLIENTS") {
        let path = PathBuf::from(dir).join(name);
        if !path.exists() {
            bail!(
                "failed to find client {}; CONNLEAK_CLIENTS names its folder",
                path.display()
            );
        }
        return Ok(path);
    }
    let beside = programs_dir()?.join(name);
    if beside.exists() {
        return Ok(beside);
    }
    static COMPILED: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let dir = COMPILED
        .get_or_init(|| {
            let dir = target_dir().map_err(|e| format!("{e:#}"))?.join("clients");
            crate::client::compile_all(&dir).map_err(|e| format!("{e:#}"))?;
            Ok(dir)
        })
        .as_ref()
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let path = dir.join(name);
    if !path.exists() {
        bail!(
            "failed to find client {name}: neither a program of the tests package nor of tests/clients"
        );
    }
    Ok(path)
}

/// The Python that has redis-py: `CONNLEAK_PYTHON`, else the virtual environment that setup makes.
pub fn python() -> Result<PathBuf> {
    let path = match std::env::var_os("CONNLEAK_PYTHON") {
        Some(path) => PathBuf::from(path),
        None => {
            let home = std::env::var_os("HOME").context("HOME is unset")?;
            PathBuf::from(home).join(".cache/connleak/venv/bin/python")
        }
    };
    if !path.exists() {
        bail!(
            "failed to find Python with redis-py at {}; run `cargo xtask setup`",
            path.display()
        );
    }
    Ok(path)
}

/// The folder of every other CPython: `CONNLEAK_PYTHONS`, else where setup puts them.
pub fn pythons() -> Result<PathBuf> {
    match std::env::var_os("CONNLEAK_PYTHONS") {
        Some(path) => Ok(PathBuf::from(path)),
        None => {
            let home = std::env::var_os("HOME").context("HOME is unset")?;
            Ok(PathBuf::from(home).join(".cache/connleak/pythons"))
        }
    }
}

/// Where Node's clients lie: `CONNLEAK_NODE_MODULES`, else where setup installs them.
pub fn node_modules() -> Result<PathBuf> {
    let path = match std::env::var_os("CONNLEAK_NODE_MODULES") {
        Some(path) => PathBuf::from(path),
        None => {
            let home = std::env::var_os("HOME").context("HOME is unset")?;
            PathBuf::from(home).join(".cache/connleak/node/node_modules")
        }
    };
    if !path.exists() {
        bail!(
            "failed to find Node's Redis clients at {}; run `cargo xtask setup`",
            path.display()
        );
    }
    Ok(path)
}

/// Sources of the clients that are not Rust.
#[must_use]
pub fn client_sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Folder of this package's own programs: `target/<profile>`, one above the test binary's `deps`.
fn programs_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("failed to find this test binary")?;
    let dir = exe.parent().context("a binary has a folder")?;
    Ok(if dir.ends_with("deps") {
        dir.parent().unwrap_or(dir).to_path_buf()
    } else {
        dir.to_path_buf()
    })
}

/// A folder in the target directory for what this process alone makes.
pub fn scratch(name: &str) -> Result<PathBuf> {
    let dir = target_dir()?
        .join("clients")
        .join(format!("{name}.{}", std::process::id()));
    std::fs::create_dir_all(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
    Ok(dir)
}

fn target_dir() -> Result<PathBuf> {
    let programs = programs_dir()?;
    Ok(programs
        .parent()
        .context("target has profiles")?
        .to_path_buf())
}
