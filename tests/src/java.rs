//! A Java program that logs its own call chain at each connect, and JVMs that are none, or do not
//! say what they are.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, str};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::chains::ChainLogger;
use crate::languages::LeakingClient;
use crate::place;

const LIBRARY: &str = "lib/server/libjvm.so";

/// Starts the program with these options of the JVM, and waits until it is up. It connects when
/// told to. Its classes are as long there as the folder.
pub fn start(
    to: SocketAddr,
    options: &[&str],
    way: &str,
    count: u32,
) -> Result<(TempDir, ChainLogger)> {
    let classes = TempDir::new().context("failed to make a folder")?;
    let java = Path::new("java");
    let program = start_by(java, classes.path(), to, options, way, count)?;
    Ok((classes, program))
}

/// The same by a JVM whose library does not describe itself.
pub fn start_silent(
    to: SocketAddr,
    options: &[&str],
    way: &str,
    count: u32,
) -> Result<(TempDir, ChainLogger)> {
    let dir = TempDir::new().context("failed to make a folder")?;
    let java = silent_jdk(dir.path())?;
    let program = start_by(&java, dir.path(), to, options, way, count)?;
    Ok((dir, program))
}

fn start_by(
    java: &Path,
    classes: &Path,
    to: SocketAddr,
    options: &[&str],
    way: &str,
    count: u32,
) -> Result<ChainLogger> {
    compile(classes)?;
    let mut command = Command::new(java);
    // One test program after another: what a JVM takes by default is more than it needs.
    command.args(["-Xmx128m", "-XX:+UseSerialGC"]).args(options);
    command.arg("-cp").arg(classes).arg("Frames");
    command.args([to.ip().to_string(), to.port().to_string()]);
    command.args([way, &count.to_string()]);
    ChainLogger::start(command)
}

/// A program that has no JVM running in it and says it has, in this way, once it is told to connect.
pub fn start_fake(to: SocketAddr, way: &str, count: u32) -> Result<LeakingClient> {
    let mut command = Command::new(place::client("fakes_java")?);
    command.arg(home()?.join(LIBRARY)).arg(way);
    command.args([to.ip().to_string(), to.port().to_string()]);
    command.arg(count.to_string());
    LeakingClient::spawn(command)
}

/// Where the JDK is that `java` belongs to.
fn home() -> Result<PathBuf> {
    let which = Command::new("sh").args(["-c", "command -v java"]).output();
    let path = which.context("failed to run sh")?.stdout;
    let path = str::from_utf8(&path)?.trim();
    let java = fs::canonicalize(path).context("failed to find java; run `cargo xtask setup`")?;
    let home = java.parent().and_then(Path::parent);
    Ok(home.context("java lies in a JDK")?.to_owned())
}

/// A JDK like this machine's, but for one name in its library. Returns its `java`.
fn silent_jdk(dir: &Path) -> Result<PathBuf> {
    let home = home()?;
    for folder in ["bin", "lib/server"] {
        fs::create_dir_all(dir.join(folder))?;
    }
    symlink(home.join("conf"), dir.join("conf"))?;
    for entry in fs::read_dir(home.join("lib"))? {
        let name = entry?.file_name();
        if name != "server" {
            symlink(home.join("lib").join(&name), dir.join("lib").join(&name))?;
        }
    }
    let mut library = fs::read(home.join(LIBRARY))?;
    let name = b"gHotSpotVMStructs\0";
    let found: Vec<usize> = (0..library.len().saturating_sub(name.len()))
        .filter(|at| library[*at..].starts_with(name))
        .collect();
    ensure!(!found.is_empty(), "{LIBRARY} does not describe itself");
    for at in found {
        library[at] = b'G';
    }
    fs::write(dir.join(LIBRARY), library)?;
    let java = dir.join("bin/java");
    // It looks for the rest from where it is itself.
    fs::copy(home.join("bin/java"), &java)?;
    Ok(java)
}

fn compile(classes: &Path) -> Result<()> {
    let mut javac = Command::new("javac");
    javac.arg("-d").arg(classes);
    javac.arg(place::client_sources().join("Frames.java"));
    let output = javac
        .output()
        .context("failed to run javac; run `cargo xtask setup`")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "failed to compile Frames.java: {errors}"
    );
    Ok(())
}
