//! How the program of each entry is made and started.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::place;

/// A source of `tests/clients/leaks`.
fn leak_source(name: &str) -> PathBuf {
    place::client_sources().join("leaks").join(name)
}

/// Has a compiler write `name` into a folder of this process's own: test programs compile at the
/// same time. Returns its path.
fn compiled(name: &str, compile: impl FnOnce(&Path) -> Command) -> Result<PathBuf> {
    let dir = place::scratch("leaks")?;
    let program = dir.join(name);
    let mut command = compile(&program);
    let output = command
        .output()
        .with_context(|| format!("failed to run {command:?}; run `cargo xtask setup`"))?;
    ensure!(
        output.status.success(),
        "failed to compile {name}: {}; run `cargo xtask setup`",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(program)
}

pub(super) fn hiredis() -> Result<Command> {
    let program = compiled("leak_hiredis", |program| {
        let mut gcc = Command::new("gcc");
        gcc.args([
            "-O2",
            "-g",
            "-fomit-frame-pointer",
            "-Wall",
            "-Werror",
            "-o",
        ])
        .arg(program)
        .arg(leak_source("hiredis.c"))
        .arg("-lhiredis");
        gcc
    })?;
    Ok(Command::new(program))
}

pub(super) fn python(script: &str) -> Result<Command> {
    let mut command = Command::new(place::python()?);
    command.arg(leak_source(script));
    Ok(command)
}

/// Debian keeps Go's libraries as sources, in a workspace of the old kind.
pub(super) fn go(name: &str, flags: &[&str]) -> Result<Command> {
    let program = compiled(name, |program| {
        let mut go = Command::new("go");
        go.arg("build")
            .args(flags)
            .arg("-o")
            .arg(program)
            .arg(leak_source("redigo.go"))
            .env("GO111MODULE", "off")
            .env("GOPATH", "/usr/share/gocode")
            .env("GOFLAGS", "");
        go
    })?;
    Ok(Command::new(program))
}

pub(super) fn php(script: &str) -> Result<Command> {
    let mut command = Command::new("php");
    command.arg(leak_source(script));
    Ok(command)
}

/// Under php-fpm, which runs the script in a worker that it forked.
pub(super) fn php_fpm(script: &str) -> Result<Command> {
    let mut command = python("php_fpm.py")?;
    command.arg(leak_source(script));
    Ok(command)
}

/// As it is for its first orders, or with these options.
pub(super) fn java(options: &[&str]) -> Result<Command> {
    let classes = compiled("orders", |classes| {
        let mut javac = Command::new("javac");
        javac.arg("-d").arg(classes).arg(leak_source("Orders.java"));
        javac
    })?;
    let mut command = Command::new("java");
    command.args(options).arg("-cp").arg(classes).arg("Orders");
    Ok(command)
}

pub(super) fn node(script: &str) -> Result<Command> {
    let mut command = Command::new("node");
    command
        .arg(leak_source(script))
        .env("NODE_PATH", place::node_modules()?);
    Ok(command)
}

/// The same with the preload, which tells of connects to `port`.
pub(super) fn node_preloaded(script: &str, port: u16) -> Result<Command> {
    let mut command = node(script)?;
    let preload = crate::node::preload(port)?;
    command.env("NODE_OPTIONS", format!("--require {}", preload.display()));
    Ok(command)
}

pub(super) fn ruby() -> Result<Command> {
    let mut command = Command::new("ruby");
    command.arg(leak_source("redis_rb.rb"));
    Ok(command)
}
