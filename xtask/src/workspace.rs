//! The workspace: where its sources, its build results and its caches are.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The directories every verb works in.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// Where cargo puts what runs on this machine.
    pub(crate) target: PathBuf,
    /// What outlives a clone: bpf-linker, the Python environment.
    pub(crate) cache: PathBuf,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self> {
        // The compile-time path is only the fallback: a moved clone keeps working under cargo.
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest
            .parent()
            .context("failed to find the workspace above xtask")?
            .to_owned();
        let target = env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |dir| root.join(dir));
        let cache = env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
            .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
            .context("failed to find a cache directory: neither XDG_CACHE_HOME nor HOME is set")?
            .join("connleak");
        Ok(Self {
            root,
            target,
            cache,
        })
    }

    /// Where tracer-user's build script looks for the kernel side.
    pub(crate) fn kernel_object(&self) -> PathBuf {
        self.root.join("target/bpf/connleak.bpf.o")
    }

    /// A program of this workspace as `build` leaves it.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }

    /// One folder for each CPython of this machine, where the tests look for them.
    pub(crate) fn pythons(&self) -> PathBuf {
        self.cache.join("pythons")
    }

    /// The interpreter that has the clients.
    pub(crate) fn python(&self) -> PathBuf {
        self.cache.join("venv/bin/python")
    }
}

/// The first file of that name on PATH.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}
