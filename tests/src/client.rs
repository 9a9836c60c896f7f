//! A real client of Redis as a child process: tells when it is ready, ends with its stdin.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::{child, place};

/// The library a client is built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// C, -O2 -fomit-frame-pointer, hiredis.
    Hiredis,
    /// Rust, redis-rs, no frame pointers (rustc's default).
    RedisRs,
    RedisPy,
    RedisPyAsyncio,
}

/// A client that opened some connections, closed some, and holds the rest.
pub struct Client {
    child: Child,
    /// Dropping it ends the client.
    stdin: Option<ChildStdin>,
}

impl Client {
    /// Opens `opened` connections to `to`, closes the first `closed` of them, and returns then.
    pub fn start(library: Library, to: SocketAddr, opened: u32, closed: u32) -> Result<Self> {
        let mut command = match library {
            Library::Hiredis => Command::new(place::client("hiredis_pool")?),
            Library::RedisRs => Command::new(place::client("redis_rs_pool")?),
            Library::RedisPy => python("redis_py_pool.py")?,
            Library::RedisPyAsyncio => python("redis_py_asyncio_pool.py")?,
        };
        command.args([
            to.ip().to_string(),
            to.port().to_string(),
            opened.to_string(),
            closed.to_string(),
        ]);
        Self::spawn(&mut command)
    }

    /// Starts any program that prints `ready` and then waits for the end of its stdin.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let mut child = child::bound(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {command:?}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("stdout is piped")?;
        let client = Self { child, stdin };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(
            line.trim() == "ready",
            "client {command:?} said {line:?} instead of ready"
        );
        Ok(client)
    }

    /// Tells a client that waits for a line to begin.
    pub fn go(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("stdin is piped")?;
        stdin.write_all(b"go\n")?;
        Ok(stdin.flush()?)
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it end in order and waits for it.
    pub fn end(mut self) -> Result<()> {
        drop(self.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "client ended with {status}");
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// redis-cli with a connection of its own, held open by its stdin.
pub fn redis_cli(to: SocketAddr) -> Result<(Client, ChildStdin)> {
    use std::io::Write;
    let mut child = child::bound(&mut Command::new("redis-cli"))
        .args(["-h", &to.ip().to_string(), "-p", &to.port().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to start redis-cli; run `cargo xtask setup`")?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let client = Client { child, stdin: None };
    stdin.write_all(b"PING\n")?;
    stdin.flush()?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line.trim() == "PONG", "redis-cli said {line:?}");
    Ok((client, stdin))
}

/// redis-benchmark to its end: `requests` PINGs, each on a connection of its own.
pub fn redis_benchmark(to: SocketAddr, requests: u32) -> Result<()> {
    let output = child::bound(&mut Command::new("redis-benchmark"))
        .args(["-h", &to.ip().to_string(), "-p", &to.port().to_string()])
        .args([
            "-k",
            "0",
            "-n",
            &requests.to_string(),
            "-c",
            "20",
            "-t",
            "ping_mbulk",
            "-q",
        ])
        .output()
        .context("failed to start redis-benchmark; run `cargo xtask setup`")?;
    ensure!(
        output.status.success(),
        "redis-benchmark: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn python(script: &str) -> Result<Command> {
    let script = match std::env::var_os("CONNLEAK_CLIENTS") {
        Some(dir) => PathBuf::from(dir).join(script),
        None => place::client_sources().join(script),
    };
    let mut command = Command::new(place::python()?);
    command.arg(script);
    Ok(command)
}

/// Compiles every C client into `dir` and copies the scripts beside them.
pub fn compile_all(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    for entry in std::fs::read_dir(place::client_sources())? {
        let source = entry?.path();
        let Some(name) = source.file_stem() else {
            continue;
        };
        // Headers are compiled into what includes them.
        if source.is_dir() || source.extension().is_some_and(|e| e == "h") {
            continue;
        }
        if source.extension().is_none_or(|e| e != "c") {
            std::fs::copy(&source, dir.join(source.file_name().unwrap_or(name)))?;
            continue;
        }
        // Renamed into place: test binaries compile at the same time.
        let fresh = dir.join(format!(
            ".{}.{}",
            name.to_string_lossy(),
            std::process::id()
        ));
        let output = Command::new("gcc")
            .args(["-O2", "-fomit-frame-pointer", "-Wall", "-Werror", "-o"])
            .arg(&fresh)
            .arg(&source)
            .arg("-lhiredis")
            .output()
            .context("failed to run gcc; run `cargo xtask setup`")?;
        if !output.status.success() {
            bail!(
                "failed to compile {}: {}; run `cargo xtask setup`",
                source.display(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        std::fs::rename(&fresh, dir.join(name))?;
    }
    Ok(())
}
