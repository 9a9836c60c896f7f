//! A Python program that logs its own call chain at each connect, under any Python of the machine.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};

use crate::{child, place};

/// Supports every version from 3.7 on.
const REDIS_PY: &str = "redis==5.0.8";
const ASYNC_TIMEOUT: &str = "async-timeout==4.0.3";

/// Every CPython 3.8 or later: pyenv's, and the distribution's.
#[must_use]
pub fn interpreters() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let root = std::env::var_os("PYENV_ROOT")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".pyenv")));
    let versions = root.and_then(|root| std::fs::read_dir(root.join("versions")).ok());
    for version in versions.into_iter().flatten().flatten() {
        let minor = version
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix("3.")?.split('.').next()?.parse().ok())
            .unwrap_or(0);
        if (8..15).contains(&minor) {
            found.push(version.path().join(format!("bin/python3.{minor}")));
        }
    }
    found.extend((8..15).map(|minor| PathBuf::from(format!("/usr/bin/python3.{minor}"))));
    found.retain(|path| path.exists());
    found.sort();
    found
}

/// A folder with redis-py for every version, filled from PyPI once; named as where packages lie.
pub fn redis_py() -> Result<PathBuf> {
    static INSTALLED: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| install_redis_py().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

fn install_redis_py() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").context("HOME is unset")?;
    let into = Path::new(&home).join(".cache/connleak/redis-py-5.0.8");
    let packages = into.join("site-packages");
    if packages.exists() {
        return Ok(packages);
    }
    // Renamed into place: test binaries install at the same time.
    let fresh = into.with_extension(format!("8.{}", std::process::id()));
    let output = Command::new(place::python()?)
        .args(["-m", "pip", "install", "-q", "--no-deps", "--target"])
        .arg(fresh.join("site-packages"))
        .args([REDIS_PY, ASYNC_TIMEOUT])
        .output()
        .context("failed to run pip")?;
    if !output.status.success() {
        bail!(
            "failed to install {REDIS_PY}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let _ = std::fs::rename(&fresh, &into);
    let _ = std::fs::remove_dir_all(&fresh);
    Ok(packages)
}

/// Call chains, innermost first (`function:line`), and how many connections have each.
pub type Chains = BTreeMap<Vec<String>, u64>;

/// The program, ready to connect.
pub struct Python {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Python {
    /// Starts the program and waits until it is up. It connects when told to.
    pub fn start(python: &Path, to: SocketAddr, way: &str, count: u32) -> Result<Self> {
        let script = match std::env::var_os("CONNLEAK_CLIENTS") {
            Some(dir) => PathBuf::from(dir).join("python_frames.py"),
            None => place::client_sources().join("python_frames.py"),
        };
        let mut command = Command::new(python);
        command.arg(script);
        command.args([to.ip().to_string(), to.port().to_string()]);
        command.args([way, &count.to_string()]);
        // In a virtual machine the one Python has redis-py of its own.
        if way.starts_with("redis") && std::env::var_os("CONNLEAK_CLIENTS").is_none() {
            command.env("PYTHONPATH", redis_py()?);
        }
        // The cache of compiled files would be written into the sources.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        let mut child = child::bound(&mut command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {command:?}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut python = Self {
            child,
            stdin,
            lines: BufReader::new(stdout).lines(),
        };
        ensure!(python.line()? == "up", "{command:?} did not come up");
        Ok(python)
    }

    /// Has it connect. Returns the process that did, and what it logged.
    pub fn go(&mut self) -> Result<(u32, Chains)> {
        let stdin = self.stdin.as_mut().context("stdin is piped")?;
        stdin.write_all(b"go\n")?;
        stdin.flush()?;
        let first = self.line()?;
        let pid = first
            .strip_prefix("pid ")
            .with_context(|| format!("{first:?} is no pid"))?
            .parse()?;
        let mut chains = Chains::new();
        loop {
            let line = self.line()?;
            if line == "ready" {
                return Ok((pid, chains));
            }
            let chain = line.split(' ').map(str::to_owned).collect();
            *chains.entry(chain).or_default() += 1;
        }
    }

    fn line(&mut self) -> Result<String> {
        Ok(self.lines.next().context("the program ended")??)
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // A forked child ends with its stdin.
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}
