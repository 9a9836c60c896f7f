//! A Ruby program that logs its own call chain at each connect, and one that only says it is a Ruby.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::chains::ChainLogger;
use crate::place;

/// What Debian 12 has.
const PROGRAM: &str = "/usr/bin/ruby3.1";

/// Starts the program and waits until it is up. It connects when told to.
pub fn start(to: SocketAddr, way: &str, count: u32) -> Result<ChainLogger> {
    ChainLogger::start(command(to, way, count))
}

/// A program that has no Ruby in it and says it is one, of this version, under a name of Ruby's.
pub fn start_fake(
    to: SocketAddr,
    way: &str,
    version: (u32, u32),
) -> Result<(TempDir, ChainLogger)> {
    let dir = TempDir::new().context("failed to make a folder")?;
    let program = dir.path().join("ruby3");
    let fake = place::client("fakes_ruby")?;
    fs::copy(&fake, &program).with_context(|| format!("failed to copy {}", fake.display()))?;
    let mut command = Command::new(program);
    command.args([to.ip().to_string(), to.port().to_string()]);
    command.args([way, "3", &version.0.to_string(), &version.1.to_string()]);
    Ok((dir, ChainLogger::start(command)?))
}

fn command(to: SocketAddr, way: &str, count: u32) -> Command {
    let script = match std::env::var_os("CONNLEAK_CLIENTS") {
        Some(dir) => PathBuf::from(dir).join("ruby_frames.rb"),
        None => place::client_sources().join("ruby_frames.rb"),
    };
    let mut command = Command::new(PROGRAM);
    // A virtual machine has the interpreter and its sockets, nothing more.
    command.arg("--disable-gems").arg(script);
    command.args([to.ip().to_string(), to.port().to_string()]);
    command.args([way, &count.to_string()]);
    command
}
