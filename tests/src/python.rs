//! A Python program that logs its own call chain at each connect, under any Python of the machine.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{child, place};

/// A CPython that connleak knows, and where the packages for its version lie.
#[derive(Clone, Debug)]
pub struct Interpreter {
    pub name: String,
    pub program: PathBuf,
    /// `None` where it has the packages itself, as in a virtual machine.
    pub packages: Option<PathBuf>,
    /// Loaded by a program of ours, in place of the interpreter's own.
    library: Option<PathBuf>,
}

impl Interpreter {
    /// The same Python, run by `embeds_python` from its shared library, where it has one.
    pub fn embedded(&self) -> Result<Option<Self>> {
        let program = std::fs::canonicalize(&self.program)?;
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let library = program
            .parent()
            .and_then(Path::parent)
            .map(|prefix| prefix.join(format!("lib/lib{name}.so.1.0")))
            .filter(|library| library.exists());
        let Some(library) = library else {
            return Ok(None);
        };
        Ok(Some(Self {
            name: format!("{} embedded", self.name),
            program: place::client("embeds_python")?,
            library: Some(library),
            ..self.clone()
        }))
    }
}

/// Every interpreter that setup found or unpacked; in a virtual machine its own.
pub fn interpreters() -> Result<Vec<Interpreter>> {
    if std::env::var_os("CONNLEAK_CLIENTS").is_some() {
        return Ok(of_the_guest());
    }
    let pythons = place::pythons()?;
    let mut found: Vec<Interpreter> = std::fs::read_dir(&pythons)
        .with_context(|| {
            format!(
                "failed to list {}; run `cargo xtask setup`",
                pythons.display()
            )
        })?
        .flatten()
        .map(|entry| Interpreter {
            name: entry.file_name().to_string_lossy().into_owned(),
            program: entry.path().join("python"),
            packages: Some(entry.path().join("site-packages")),
            library: None,
        })
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

fn of_the_guest() -> Vec<Interpreter> {
    (8..15)
        .map(|minor| PathBuf::from(format!("/usr/bin/python3.{minor}")))
        .filter(|program| program.exists())
        .map(|program| Interpreter {
            name: program.display().to_string(),
            program,
            packages: None,
            library: None,
        })
        .collect()
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
    pub fn start(python: &Interpreter, to: SocketAddr, way: &str, count: u32) -> Result<Self> {
        let script = match std::env::var_os("CONNLEAK_CLIENTS") {
            Some(dir) => PathBuf::from(dir).join("python_frames.py"),
            None => place::client_sources().join("python_frames.py"),
        };
        let mut command = Command::new(&python.program);
        command.arg(script);
        command.args([to.ip().to_string(), to.port().to_string()]);
        command.args([way, &count.to_string()]);
        if let Some(library) = &python.library {
            // An embedder says where the standard library lies.
            let prefix = library
                .ancestors()
                .nth(2)
                .context("a library has a prefix")?;
            command.env("EMBEDDED_LIBRARY", library);
            command.env("PYTHONHOME", prefix);
        }
        if let Some(packages) = &python.packages {
            command.env("PYTHONPATH", packages);
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
