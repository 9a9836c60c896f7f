//! MANUAL: what makes the daemon stop acting and call a person.

use std::io::Write;
use std::net::TcpStream;

use anyhow::{Result, ensure};
use connleak_tests::daemon::Home;
use connleak_tests::gate::{self, Need};
use connleak_tests::server::RedisServer;
use connleak_tests::wait;

#[test]
fn a_latency_above_the_limit_for_long_is_manual() -> Result<()> {
    if !gate::open("a_latency_above_the_limit_for_long_is_manual", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    // No Redis answers within a microsecond.
    let policy = "latency_limit = \"1us\"\nlatency_hold = \"1500ms\"";
    home.configure(redis.port(), policy, "")?;
    let daemon = home.start()?;
    let up = daemon.says("redis is up")?;
    let line = daemon.says("MANUAL: redis latency above 1µs for 1.5s")?;
    let held = line.at.duration_since(up.at);
    ensure!(held.as_millis() >= 1400, "held for {held:?} only");
    let status = daemon.status()?;
    ensure!(status["manual"]["cause"].is_string(), "{status:#}");
    ensure!(daemon.count("MANUAL") == 1, "{:#?}", daemon.said());
    Ok(())
}

#[test]
fn error_replies_of_redis_are_manual() -> Result<()> {
    if !gate::open("error_replies_of_redis_are_manual", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    home.configure_redis(
        redis.port(),
        "max_error_replies_per_minute = 0.0\nredis_hold = \"0s\"",
        "info_interval = \"1s\"",
    )?;
    let daemon = home.start()?;
    daemon.says("redis is up")?;
    ensure!(daemon.count("MANUAL") == 0, "{:#?}", daemon.said());
    let mut client = TcpStream::connect(redis.v4())?;
    wait::until("error replies to be MANUAL", || {
        client.write_all(b"NOSUCHCOMMAND\r\n").ok()?;
        (daemon.count("MANUAL: redis is Up") == 1).then_some(())
    })?;
    ensure!(daemon.count("error replies") == 1, "{:#?}", daemon.said());
    Ok(())
}

#[test]
fn a_daemon_that_is_killed_again_and_again_is_manual() -> Result<()> {
    if !gate::open("a_daemon_that_is_killed_again_and_again", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    home.configure(redis.port(), "max_daemon_starts = 1", "")?;
    // Stopped on purpose is not restarted.
    ensure!(home.start()?.end(libc::SIGTERM)?.success());
    let daemon = home.start()?;
    ensure!(daemon.count("MANUAL") == 0, "{:#?}", daemon.said());
    daemon.end(libc::SIGKILL)?;
    let daemon = home.start()?;
    daemon.says("MANUAL: the daemon started 2 times within 600s")?;
    daemon.ask("ack", &[])?;
    daemon.says("MANUAL is over")?;
    Ok(())
}
