//! `connleak guard`: what a command, or anything it started, leaves open makes it fail.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use connleak_tests::gate::{self, Need};
use connleak_tests::place;
use connleak_tests::server::RedisServer;
use connleak_tests::tracer::{Ended, Tracer};
use connleak_tests::wait;
use serde_json::Value;

fn script() -> String {
    let clients = std::env::var_os("CONNLEAK_CLIENTS").map(std::path::PathBuf::from);
    let folder = clients.unwrap_or_else(place::client_sources);
    folder.join("leaks.py").to_string_lossy().into_owned()
}

/// Runs `command` under the guard, with `options` for the guard.
fn guard(server: &RedisServer, options: &[&str], command: &[&str]) -> Result<Ended> {
    let mut guard = Command::new(place::connleak()?);
    guard.args(["guard", "--probes", &gate::family()]);
    guard.args(["--port", &server.port().to_string()]);
    guard.args(options).arg("--").args(command);
    // Annotations name files as they are.
    guard.env("GITHUB_WORKSPACE", "/nowhere");
    Tracer::spawn(&mut guard)?.ended()
}

/// A client that opens, closes some, and exits with a code of its own.
fn exit_with(server: &RedisServer, opened: u32, closed: u32, code: u32) -> Result<Vec<String>> {
    let python = place::python()?.to_string_lossy().into_owned();
    let numbers = [u32::from(server.port()), opened, closed, code].map(|it| it.to_string());
    let [port, opened, closed, code] = numbers;
    Ok(vec![
        python,
        script(),
        "exit_with".into(),
        "127.0.0.1".into(),
        port,
        opened,
        closed,
        code,
    ])
}

fn borrowed(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn json(ended: &Ended) -> Result<Value> {
    serde_json::from_slice(&ended.stdout).with_context(|| format!("{ended:?}"))
}

#[test]
fn what_is_open_when_the_command_exits_fails_it_and_is_listed_by_line() -> Result<()> {
    let test = "what_is_open_when_the_command_exits_fails_it_and_is_listed_by_line";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    // Somebody else's connection is not the command's.
    let _stranger = TcpStream::connect(server.v4())?;
    let command = exit_with(&server, 5, 2, 0)?;
    let ended = guard(&server, &["-o", "json"], &borrowed(&command))?;
    ensure!(ended.status.code() == Some(1), "{ended:?}");
    let object = json(&ended)?;
    ensure!(object["schema"] == "connleak.guard/1", "{object:#}");
    ensure!(object["left_open"] == 3, "{object:#}");
    ensure!(object["exit_code"] == 0, "{object:#}");
    ensure!(object["passed"] == false, "{object:#}");
    let leaks = object["leaks"].as_array().context("leaks")?;
    let counted: u64 = leaks
        .iter()
        .filter_map(|leak| leak["connections"].as_u64())
        .sum();
    ensure!(counted == 3, "{object:#}");
    ensure!(
        object["report"]["openers"][0]["states"]["ESTABLISHED"] == 3,
        "{object:#}"
    );
    Ok(())
}

#[test]
fn the_exit_code_of_a_command_that_closed_everything_is_its_own() -> Result<()> {
    let test = "the_exit_code_of_a_command_that_closed_everything_is_its_own";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let command = exit_with(&server, 3, 3, 7)?;
    let ended = guard(&server, &[], &borrowed(&command))?;
    ensure!(ended.status.code() == Some(7), "{ended:?}");
    let ended = guard(&server, &[], &["sh", "-c", "kill -TERM $$"])?;
    ensure!(ended.status.code() == Some(128 + 15), "{ended:?}");
    // What is allowed is no failure.
    let command = exit_with(&server, 2, 0, 0)?;
    let ended = guard(&server, &["--max-growth", "2"], &borrowed(&command))?;
    ensure!(ended.status.code() == Some(0), "{ended:?}");
    let ended = guard(&server, &[], &["/nonexistent/command"])?;
    ensure!(ended.status.code() == Some(2), "{ended:?}");
    ensure!(ended.stderr.len() == 1, "{ended:?}");
    Ok(())
}

#[test]
fn what_descendants_leave_open_is_the_commands() -> Result<()> {
    let test = "what_descendants_leave_open_is_the_commands";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let folder = tempfile::tempdir()?;
    let pid_file = folder.path().join("pid");
    let (python, script) = (place::python()?, script());
    // A grandchild that ends and one that stays, neither of them a child of the command.
    let line = format!(
        "( ( ({python} {script} exit_with 127.0.0.1 {port} 2 0 0; : > {ended}) & ) ; \
         {python} {script} outlive 127.0.0.1 {port} 3 < /dev/null > /dev/null 2>&1 ); \
         until [ -e {ended} ] && [ -s {pid} ]; do sleep 0.05; done",
        python = python.display(),
        port = server.port(),
        ended = folder.path().join("ended").display(),
        pid = pid_file.display(),
    );
    let wrapped = format!(
        "export CONNLEAK_TEST_PIDFILE={}; {line}",
        pid_file.display()
    );
    let ended = guard(&server, &["-o", "json"], &["sh", "-c", &wrapped]);
    let daemon: i32 = fs::read_to_string(&pid_file)?.trim().parse()?;
    // SAFETY: kill touches no memory; the process is one that this test started.
    unsafe { libc::kill(daemon, libc::SIGKILL) };
    let ended = ended?;
    ensure!(ended.status.code() == Some(1), "{ended:?}");
    let object = json(&ended)?;
    ensure!(object["left_open"] == 5, "{object:#}");
    let openers = object["report"]["openers"].as_array().context("openers")?;
    let outstanding: Vec<_> = openers
        .iter()
        .map(|opener| (opener["outstanding"].as_u64(), opener["ended"].as_bool()))
        .collect();
    ensure!(
        outstanding == [(Some(3), Some(false)), (Some(2), Some(true))],
        "{outstanding:?}"
    );
    Ok(())
}

/// A script whose name is markup, for every format it is written to.
fn with_a_hostile_name(folder: &Path) -> Result<String> {
    let name = "a\"<&>',:%0A]]>\n::error::x\u{1b}[2J.py";
    let path = folder.join(name);
    fs::copy(script(), &path)?;
    Ok(path.to_string_lossy().into_owned())
}

#[test]
fn hostile_names_are_harmless_in_every_format() -> Result<()> {
    let test = "hostile_names_are_harmless_in_every_format";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let folder = tempfile::tempdir()?;
    let mut command = exit_with(&server, 2, 0, 0)?;
    command[1] = with_a_hostile_name(folder.path())?;
    let junit = folder.path().join("junit.xml");
    let file = junit.to_string_lossy();
    let ended = guard(
        &server,
        &["--junit", &file, "--github"],
        &borrowed(&command),
    )?;
    ensure!(ended.status.code() == Some(1), "{ended:?}");
    let annotations = String::from_utf8(ended.stdout.clone())?;
    ensure!(!annotations.is_empty(), "{ended:?}");
    for line in annotations.lines() {
        ensure!(line.starts_with("::error "), "{line:?}");
        ensure!(line.matches("::error").count() == 1, "{line:?}");
        ensure!(!line.contains('\u{1b}'), "{line:?}");
    }
    ensure!(
        !ended.stderr.iter().any(|line| line.contains('\u{1b}')),
        "{ended:?}"
    );
    let xmllint = Command::new("xmllint").arg("--noout").arg(&junit).output();
    let xmllint = match xmllint {
        Ok(xmllint) => xmllint,
        Err(error) => {
            gate::skip(test, &format!("xmllint: {error}; run `cargo xtask setup`"));
            return Ok(());
        }
    };
    ensure!(xmllint.status.success(), "{xmllint:?}");
    let text = fs::read_to_string(&junit)?;
    let failures = text.matches("<failure ").count();
    ensure!(failures == annotations.lines().count(), "{text}");
    Ok(())
}

#[test]
fn a_signal_reaches_the_command_and_its_end_is_waited_for() -> Result<()> {
    let test = "a_signal_reaches_the_command_and_its_end_is_waited_for";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let folder = tempfile::tempdir()?;
    let up = folder.path().join("up");
    let line = format!(
        "trap 'exit 5' TERM; echo > {up}; while :; do sleep 0.05; done",
        up = up.display()
    );
    let mut command = Command::new(place::connleak()?);
    command.args(["guard", "--probes", &gate::family()]);
    command.args([
        "--port",
        &server.port().to_string(),
        "--",
        "sh",
        "-c",
        &line,
    ]);
    let guarded = Tracer::spawn(&mut command)?;
    wait::until("the command is up", || up.exists().then_some(()))?;
    guarded.signal(libc::SIGTERM);
    let ended = guarded.ended()?;
    ensure!(ended.status.code() == Some(5), "{ended:?}");
    Ok(())
}
