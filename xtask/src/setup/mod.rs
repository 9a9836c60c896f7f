//! `cargo xtask setup`: finds or installs what building and testing need, and says which it did.

mod apt;
mod linker;
mod node;
mod python;
mod rustup;
pub(crate) mod toolchain;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::workspace::{Workspace, which};

/// How much of the machine a verb needs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// The compilers and a redis-server.
    Demo,
    /// The clients of the tests too.
    Tests,
    /// What lints the code too.
    Lint,
    /// Whom connleak is measured beside.
    Bench,
}

/// Which items get their line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wording {
    Every,
    /// Only what was not there yet: for the verbs that set up on their way.
    Changes,
}

impl Wording {
    fn found(self, item: &str, what: &str) {
        if self == Self::Every {
            print_item(item, what);
        }
    }

    #[expect(clippy::unused_self, reason = "the counterpart of found()")]
    fn did(self, item: &str, what: &str) {
        print_item(item, what);
    }
}

fn print_item(item: &str, what: &str) {
    println!("setup: {item:<17} {what}");
}

/// Brings the machine to what `scope` needs. A second run finds everything and changes nothing.
pub(crate) fn run(workspace: &Workspace, scope: Scope, wording: Wording) -> Result<()> {
    let debian = apt::Debian::detect();
    match &debian {
        Some(debian) => apt::ensure(debian, workspace, scope, wording)?,
        None => wording.found("packages", "no apt here: programs are looked up on PATH"),
    }
    toolchain::ensure(workspace, debian.as_ref(), wording)?;
    linker::ensure(workspace, wording)?;
    program(
        wording,
        "redis-server",
        &["redis-server"],
        "install Redis, 6.2 or newer",
    )?;
    if scope >= Scope::Tests {
        let clients = ["redis-cli", "redis-benchmark", "ss", "cc"];
        program(wording, "test clients", &clients, "install it")?;
        let prometheus = ["prometheus", "promtool"];
        program(wording, "prometheus", &prometheus, "install it")?;
        python::ensure(workspace, wording)?;
        node::ensure(workspace, wording)?;
    }
    if scope >= Scope::Lint {
        rustup::ensure_lints(workspace, wording)?;
    }
    Ok(())
}

/// Programs that must be on PATH by now, whoever installed them.
fn program(wording: Wording, item: &str, names: &[&str], remedy: &str) -> Result<()> {
    let mut found = Vec::new();
    for name in names {
        match which(name) {
            Some(path) => found.push(path.display().to_string()),
            None => bail!("failed to find {name} on PATH: {remedy}"),
        }
    }
    wording.found(item, &found.join(" "));
    Ok(())
}

/// What a program prints, trimmed; an error when it cannot be run or fails.
fn output_of(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("failed to run {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!(
            "failed to run {:?}: {}: {}",
            command.get_program(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The second word of `PROGRAM --version`.
fn version_of(program: &Path) -> Option<String> {
    let text = output_of(Command::new(program).arg("--version")).ok()?;
    text.split_whitespace().nth(1).map(str::to_owned)
}
