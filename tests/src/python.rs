//! A Python program that logs its own call chain at each connect, under any Python of the machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::chains::ChainLogger;
use crate::place;

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

/// Starts the program and waits until it is up. It connects when told to.
pub fn start(python: &Interpreter, to: SocketAddr, way: &str, count: u32) -> Result<ChainLogger> {
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
    ChainLogger::start(command)
}
