//! An idle daemon is small. What it costs in CPU time a benchmark prints: a busy machine decides it.

use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use connleak_tests::daemon::Home;
use connleak_tests::gate::{self, Need};
use connleak_tests::server::RedisServer;
use connleak_tests::wait;

const MIB: u64 = 1 << 20;

#[test]
fn a_daemon_with_100_connections_stays_below_40_mib() -> Result<()> {
    if !gate::open("a_daemon_with_100_connections_stays_below", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    home.configure(redis.port(), "", "")?;
    // Several rounds of all that is done once a minute.
    home.change("\"1h\"", "\"500ms\"")?;
    // The history counts in seconds.
    home.change("interval = \"500ms\"", "interval = \"1s\"")?;
    home.change("[redis]\n", "[redis]\nclients_interval = \"1s\"\n")?;
    let daemon = home.start()?;
    let _open: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(redis.v4()))
        .collect::<std::io::Result<_>>()?;
    wait::until("100 connections to be in CLIENT LIST", || {
        let status = daemon.status().ok()?;
        (status["openers"][0]["redis"]["clients"] == 100).then_some(())
    })?;
    // What was mapped to name their stacks goes when nothing more is to be named.
    let small = || {
        let resident = daemon.status().ok()?["resident_bytes"].as_u64()?;
        (resident < 40 * MIB).then_some(())
    };
    let rested =
        wait::until("a small daemon", small).or_else(|_| wait::until("a small one", small));
    rested.with_context(|| format!("{:?}", daemon.status()))?;
    let beats = daemon.count("drift 0") + 3;
    wait::until("three heartbeats", || {
        (daemon.count("drift 0") >= beats).then_some(())
    })?;
    let resident = daemon.status()?["resident_bytes"].as_u64();
    let resident = resident.context("resident_bytes")?;
    ensure!(resident < 40 * MIB, "{} MiB", resident / MIB);
    Ok(())
}
