//! A minute without the Redis of the fleet: its daemon loses nothing, and tells what the fleet lost.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use connleak_tests::client::{Client, Library};
use connleak_tests::daemon::{Daemon, Home};
use connleak_tests::gate::{self, Need};
use connleak_tests::server::{RedisServer, SocketServer};
use connleak_tests::tool::read_with;
use connleak_tests::wait;
use serde_json::Value;
use tempfile::TempDir;

use super::{KEY, exporting, fleet};

const OUTAGE: Duration = Duration::from_secs(60);
const BUFFER: u64 = 3;
/// Both ends of thirty are sixty: LEAK begins at fifty.
const LEAKED: u32 = 30;
const HEARTBEAT: &str = "drift 0";

/// A Redis whose stream outlives it: all that it ever took can be read afterwards.
fn lasting(dir: &Path) -> Result<SocketServer> {
    let folder = dir.to_str().context("a path of text")?;
    let kept = ["--appendonly", "yes", "--appendfsync", "always", "--dir"];
    SocketServer::start_with(&dir.join("redis.sock"), &[&kept[..], &[folder]].concat())
}

fn stream(daemon: &Daemon, field: &str) -> Option<u64> {
    daemon.status().ok()?["stream"][field].as_u64()
}

/// Waits for so many more heartbeats: a second each.
fn beats(daemon: &Daemon, count: usize) -> Result<()> {
    let until = daemon.count(HEARTBEAT) + count;
    wait::until("heartbeats", || {
        (daemon.count(HEARTBEAT) >= until).then_some(())
    })
}

/// A client leaks and ends; levels, status and the live report follow it.
fn leak_and_recover(daemon: &Daemon, redis: &RedisServer) -> Result<()> {
    let (leaks, recoveries) = (daemon.count("-> LEAK"), daemon.count("-> HEALTHY"));
    let said =
        |what: &str, count: usize| wait::until(what, || (daemon.count(what) > count).then_some(()));
    let client = Client::start(Library::Hiredis, redis.v4(), LEAKED, 0)?;
    said("-> LEAK", leaks)?;
    beats(daemon, 3)?;
    let status = daemon.status()?;
    ensure!(status["subjects"][0]["level"] == "LEAK", "{status:#}");
    ensure!(
        status["stream"]["waiting"].as_u64() <= Some(BUFFER),
        "{status:#}"
    );
    let report: Value = serde_json::from_slice(&daemon.ask("report", &["-o", "json"])?)?;
    let openers = report["openers"].as_array().context("openers")?;
    let opener = openers.iter().find(|it| it["pid"] == client.pid());
    ensure!(
        opener.is_some_and(|it| it["outstanding"] == LEAKED),
        "{report:#}"
    );
    client.end()?;
    said("-> HEALTHY", recoveries)?;
    beats(daemon, 3)
}

/// How often the history saw the count rise to [`LEAKED`].
fn rises(home: &Home) -> Result<usize> {
    let file = home.path("history.db");
    let file = file.to_str().context("a path of text")?;
    let query = "SELECT outstanding FROM sample ORDER BY at_s";
    let counts = read_with("sqlite3", &["-readonly", file, query], "")?;
    let counts: Vec<&str> = counts.lines().collect();
    let leaked = LEAKED.to_string();
    let rise = |pair: &&[&str]| pair[0] != leaked && pair[1] == leaked;
    Ok(counts.windows(2).filter(rise).count())
}

/// Number and count of dropped ones of every digest in the stream, the oldest first.
fn digests(socket: &Path) -> Result<Vec<(u64, u64)>> {
    let socket = socket.to_str().context("a path of text")?;
    let range = ["-s", socket, "--raw", "XRANGE", KEY, "-", "+"];
    let text = read_with("redis-cli", &range, "")?;
    let reports = text.lines().filter(|line| line.starts_with('{'));
    let digest = |line: &str| {
        let digest: Value = serde_json::from_str(line)?;
        let field = |name: &str| digest[name].as_u64().with_context(|| format!("{digest:#}"));
        Ok((field("number")?, field("dropped")?))
    };
    reports.map(digest).collect()
}

#[test]
fn a_minute_without_the_stream_costs_nothing_local_and_what_was_dropped_is_counted() -> Result<()> {
    if !gate::open("a_minute_without_the_stream", Need::Bpf) {
        return Ok(());
    }
    let dir = TempDir::with_prefix("connleak-fleet-")?;
    let socket = dir.path().join("redis.sock");
    let central = lasting(dir.path())?;
    let url = central.url();
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    exporting(&home, redis.port(), &url, &format!("buffer = {BUFFER}"))?;
    home.change("heartbeat = \"1h\"", "heartbeat = \"1s\"")?;
    home.change("interval = \"1h\"", "interval = \"1s\"")?;
    let daemon = home.start()?;
    // Right after one was taken, none is on its way.
    let written = wait::until("a report in the stream", || {
        stream(&daemon, "written").filter(|written| *written > 0)
    })?;
    let written = wait::until("another one", || {
        stream(&daemon, "written").filter(|now| *now > written)
    })?;
    drop(central);

    let (began, mut rounds) = (Instant::now(), 0);
    while began.elapsed() < OUTAGE {
        leak_and_recover(&daemon, &redis)?;
        rounds += 1;
    }
    ensure!(rises(&home)? == rounds, "{} of {rounds}", rises(&home)?);
    ensure!(stream(&daemon, "written") == Some(written));
    let told = daemon.count("failed to append to the stream");
    ensure!(told == 1, "told {told} times: {:#?}", daemon.said());

    let _central = lasting(dir.path())?;
    let status = wait::until("the stream goes on", || {
        let status = daemon.status().ok()?;
        let stream = &status["stream"];
        let gained = stream["written"].as_u64()? - written;
        (gained > BUFFER + 1 && stream["waiting"] == 0).then_some(status)
    })?;
    let digests = digests(&socket)?;
    let mut missing = 0;
    for (position, (number, dropped)) in (0..).zip(&digests) {
        missing = number - position;
        ensure!(*dropped == missing, "dropped what is there: {digests:?}");
    }
    ensure!(missing > BUFFER, "{digests:?}");
    ensure!(status["stream"]["dropped"] == missing, "{status:#}");
    let view = fleet(&[&url])?;
    ensure!(view["hosts"][0]["dropped"] == missing, "{view:#}");
    leak_and_recover(&daemon, &redis)
}
