//! Node's preload: every stack it tells is that of the connect it is told with, and a program that
//! hinders it connects as it would without.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use connleak_tests::gate::{self, Need};
use connleak_tests::languages::LeakingClient;
use connleak_tests::report::{Report, StackGroup};
use connleak_tests::server::RedisServer;
use connleak_tests::tracer::{EVERY_STACK, Tracer};
use connleak_tests::{node, place};

const PATHS: u64 = 20;

/// The report of `node_paths.js`, each path taken so often.
fn traced(way: &str, count: u64) -> Result<(Report, u32)> {
    let server = RedisServer::start()?;
    let mut command = Command::new("node");
    command
        .arg("--require")
        .arg(node::preload(server.port())?)
        .arg(place::client_sources().join("node_paths.js"))
        .args([server.v4().ip().to_string(), server.port().to_string()])
        .args([way, &count.to_string()])
        .env("NODE_PATH", place::node_modules()?);
    let mut client = LeakingClient::spawn(command)?;
    let tracer = Tracer::start_with(&[server.port()], &EVERY_STACK)?;
    client.leak()?;
    let report = tracer.finish()?;
    let outstanding: u64 = report.of(client.pid()).map(|one| one.outstanding).sum();
    ensure!(
        outstanding == PATHS * count,
        "{outstanding} are outstanding"
    );
    Ok((report, client.pid()))
}

/// The function of the path, which stands outside the one that made the client.
fn path(group: &StackGroup) -> Result<String> {
    let mut functions = group.frames.iter().filter_map(|f| f.function.as_deref());
    let is_path = |name: &&str| name.starts_with("path");
    let has_maker = functions.any(|name| matches!(name, "withIoredis" | "withNodeRedis"));
    let path = functions.find(is_path);
    let path = path.filter(|_| has_maker);
    Ok(path.with_context(|| format!("{group:#?}"))?.to_owned())
}

#[test]
fn two_hundred_connects_of_a_busy_node_are_all_told_right() -> Result<()> {
    let test = "two_hundred_connects_of_a_busy_node_are_all_told_right";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let count = 10;
    let (report, pid) = traced("busy", count)?;
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for group in report.of(pid).flat_map(|opener| &opener.stacks) {
        let note = group.note.as_deref();
        ensure!(
            note == Some("JavaScript frames as told by the process"),
            "{note:?}"
        );
        *seen.entry(path(group)?).or_default() += group.outstanding;
    }
    let expected: BTreeMap<String, u64> = (0..PATHS)
        .map(|index| (format!("path{index}"), count))
        .collect();
    ensure!(seen == expected, "{seen:#?}");
    Ok(())
}

#[test]
fn a_program_that_hinders_the_preload_connects_all_the_same() -> Result<()> {
    let test = "a_program_that_hinders_the_preload_connects_all_the_same";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let (report, pid) = traced("hindered", 1)?;
    for group in report.of(pid).flat_map(|opener| &opener.stacks) {
        let note = group.note.as_deref().unwrap_or_default();
        ensure!(note.starts_with("no JavaScript frames: "), "{note:?}");
    }
    Ok(())
}
