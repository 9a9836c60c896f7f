//! An idle daemon is small, and says what it takes. What it costs in CPU time a benchmark prints: a
//! busy machine decides it.

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

#[test]
fn what_a_daemon_takes_and_may_take_is_in_its_status() -> Result<()> {
    if !gate::open("what_a_daemon_takes_and_may_take", Need::Bpf) {
        return Ok(());
    }
    const MAX_SOCKETS: u64 = 10_000;
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    let limits = format!("[limits]\nmax_sockets = {MAX_SOCKETS}\nbackground_cpu_percent = 7\n");
    home.configure(redis.port(), "", &limits)?;
    let daemon = home.start()?;
    let _open: Vec<TcpStream> = (0..30)
        .map(|_| TcpStream::connect(redis.v4()))
        .collect::<std::io::Result<_>>()?;
    // Both ends; the daemon's own connection is tracked too.
    let usage = wait::until("60 sockets", || {
        let usage = daemon.status().ok()?["usage"].take();
        (usage["sockets"].as_u64()? >= 60).then_some(usage)
    })?;
    ensure!(usage["sockets_max"] == MAX_SOCKETS, "{usage}");
    ensure!(usage["background_cpu_percent_max"] == 7, "{usage}");
    ensure!(usage["cpu_s"].as_f64() > Some(0.0), "{usage}");
    // A record is 128 bytes, and the map is allocated whole.
    let kernel_bytes = usage["kernel_bytes"].as_u64();
    ensure!(kernel_bytes > Some(128 * MAX_SOCKETS), "{usage}");
    let said = String::from_utf8(daemon.ask("status", &[])?)?;
    ensure!(said.contains("7 % allowed in the background"), "{said}");
    ensure!(said.contains(" of 10000 sockets"), "{said}");

    home.change("background_cpu_percent = 7", "background_cpu_percent = 8")?;
    daemon.signal(libc::SIGHUP);
    wait::until("the new bound", || {
        let usage = daemon.status().ok()?["usage"].take();
        (usage["background_cpu_percent_max"] == 8).then_some(())
    })
}
