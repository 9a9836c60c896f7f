//! A Java program that logs its own call chain at each connect.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::chains::ChainLogger;
use crate::place;

/// Starts the program with these options of the JVM, and waits until it is up. It connects when
/// told to. Its classes are as long there as the folder.
pub fn start(
    to: SocketAddr,
    options: &[&str],
    way: &str,
    count: u32,
) -> Result<(TempDir, ChainLogger)> {
    let classes = compiled()?;
    let mut command = Command::new("java");
    // One test program after another: what a JVM takes by default is more than it needs.
    command.args(["-Xmx128m", "-XX:+UseSerialGC"]).args(options);
    command.arg("-cp").arg(classes.path()).arg("Frames");
    command.args([to.ip().to_string(), to.port().to_string()]);
    command.args([way, &count.to_string()]);
    Ok((classes, ChainLogger::start(command)?))
}

fn compiled() -> Result<TempDir> {
    let classes = TempDir::new().context("failed to make a folder")?;
    let mut javac = Command::new("javac");
    javac.arg("-d").arg(classes.path());
    javac.arg(place::client_sources().join("Frames.java"));
    let output = javac
        .output()
        .context("failed to run javac; run `cargo xtask setup`")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "failed to compile Frames.java: {errors}"
    );
    Ok(classes)
}
