//! Node with the preload, as a person would have it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::place;

/// The file that `connleak node-preload` prints for `port`, kept for `--require`.
pub fn preload(port: u16) -> Result<PathBuf> {
    let printed = Command::new(place::connleak()?)
        .args(["node-preload", "--port", &port.to_string()])
        .output()
        .context("failed to run connleak node-preload")?;
    ensure!(printed.status.success(), "{printed:?}");
    let path = place::scratch("preload")?.join(format!("{port}.js"));
    fs::write(&path, &printed.stdout)
        .with_context(|| format!("failed to write {}", path.display()))?;
    Ok(path)
}
