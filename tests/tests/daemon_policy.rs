//! The daemon's policy at work: who is acted on, when not, and what is left of it on disk.

use anyhow::{Result, ensure};
use connleak_tests::daemon::{Home, completed};
use connleak_tests::gate::{self, Need};
use connleak_tests::server::RedisServer;
use connleak_tests::unit::Unit;

const QUICK: &str = "cooldown = \"1h\"\nverify_window = \"1s\"\nsettle_window = \"1s\"";

fn unit(unit: &Unit, exec: &str) -> String {
    format!(
        "[[unit]]\nname = \"{}\"\nactions = [\"exec\"]\nexec = [\"/bin/sh\", \"-c\", \"{exec}\"]\n",
        unit.name()
    )
}

#[test]
fn the_unit_that_grows_is_acted_on_with_its_evidence_on_disk() -> Result<()> {
    if !gate::open("the_unit_that_grows_is_acted_on", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let (leaky, steady) = (Unit::new("leaky")?, Unit::new("steady")?);
    let pool = steady.client(redis.port(), 10)?;
    let home = Home::new()?;
    // The command finds its evidence on disk already.
    let listing = home.path("listing");
    let exec = format!(
        "cat > {}; ls {} > {}; {}",
        home.path("stdin").display(),
        home.path("evidence").display(),
        listing.display(),
        leaky.killer()
    );
    let units = unit(&leaky, &exec) + &unit(&steady, "exit 1");
    home.configure(redis.port(), QUICK, &units)?;
    let daemon = home.start()?;
    let _leak = leaky.client(redis.port(), 45)?;

    let evidence = completed(&home, 0)?;
    ensure!(evidence["act"]["unit"] == leaky.name(), "{evidence:#}");
    ensure!(evidence["outcome"]["outcome"] == "done", "{evidence:#}");
    ensure!(evidence["verdict"]["verdict"] == "helped", "{evidence:#}");
    ensure!(evidence["act"]["facts"]["count"].as_u64() >= Some(100));
    let openers = evidence["report"]["openers"].as_array().cloned();
    let leaker = openers
        .iter()
        .flatten()
        .find(|opener| opener["unit"] == leaky.name());
    let frames = leaker.map(|opener| opener["stacks"][0]["frames"].clone());
    ensure!(
        frames.is_some_and(|frames| frames.as_array().is_some_and(|frames| !frames.is_empty())),
        "no stack in {evidence:#}"
    );
    ensure!(std::fs::read_to_string(listing)?.contains(".json"));
    let told: serde_json::Value = serde_json::from_slice(&std::fs::read(home.path("stdin"))?)?;
    ensure!(told["act"] == evidence["act"]);
    ensure!(home.evidence().len() == 1);
    pool.end()?;
    ensure!(daemon.count("-> CRITICAL") == 1, "{:#?}", daemon.said());
    Ok(())
}

#[test]
fn the_level_is_said_by_the_event_that_crosses() -> Result<()> {
    if !gate::open("the_level_is_said_by_the_event_that_crosses", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    home.configure(redis.port(), QUICK, "")?;
    let daemon = home.start()?;
    // Both ends of each count: the thirteenth makes it 26.
    let mut open = Vec::new();
    for _ in 0..12 {
        open.push(std::net::TcpStream::connect(redis.v4())?);
    }
    daemon.counts(24)?;
    ensure!(daemon.count("->") == 0);
    let crossed = std::time::Instant::now();
    open.push(std::net::TcpStream::connect(redis.v4())?);
    // Neither heartbeat nor reconcile comes within the hour: it is the event that says it.
    let line = daemon.says("HEALTHY -> WARNING at 26 connections")?;
    let took = line.at.duration_since(crossed);
    eprintln!("from connect to the logged level: {took:?}");
    open.clear();
    daemon.says("WARNING -> HEALTHY")?;
    Ok(())
}

#[test]
fn kill_9_does_not_shorten_the_cooldown() -> Result<()> {
    if !gate::open("kill_9_does_not_shorten_the_cooldown", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let leaky = Unit::new("leaky")?;
    let home = Home::new()?;
    home.configure(redis.port(), QUICK, &unit(&leaky, &leaky.killer()))?;
    let daemon = home.start()?;
    let first = leaky.client(redis.port(), 60)?;
    daemon.says("exec of")?;
    daemon.end(libc::SIGKILL)?;
    drop(first);

    let daemon = home.start()?;
    let _second = leaky.client(redis.port(), 60)?;
    daemon.says("the cooldown is running")?;
    ensure!(home.evidence().len() == 1);
    let left = daemon.status()?["cooldown_left_s"].as_f64().unwrap_or(0.0);
    ensure!(left > 1800.0, "{left} s are left of an hour");
    Ok(())
}

#[test]
fn restarts_that_do_not_help_end_in_manual_until_ack() -> Result<()> {
    if !gate::open("restarts_that_do_not_help_end_in_manual", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let leaky = Unit::new("leaky")?;
    let home = Home::new()?;
    let policy = "cooldown = \"1h\"\nverify_window = \"100ms\"\nmax_failed_restarts = 1";
    home.configure(redis.port(), policy, &unit(&leaky, "true"))?;
    let daemon = home.start()?;
    let _leak = leaky.client(redis.port(), 60)?;
    daemon.says("MANUAL: 1 restarts in a row did not help")?;
    let evidence = completed(&home, 0)?;
    ensure!(
        evidence["verdict"]["verdict"] == "not-fallen",
        "{evidence:#}"
    );
    ensure!(daemon.status()?["manual"]["cause"].is_string());

    // Across a restart of the daemon too.
    ensure!(daemon.end(libc::SIGTERM)?.success());
    let daemon = home.start()?;
    ensure!(daemon.status()?["manual"]["cause"].is_string());
    let text = String::from_utf8(daemon.ask("status", &[])?)?;
    ensure!(text.contains("MANUAL"), "{text}");
    daemon.ask("ack", &[])?;
    daemon.says("MANUAL is over: a person acknowledged it")?;
    ensure!(daemon.status()?["manual"].is_null());
    Ok(())
}

#[test]
fn the_unit_that_listens_is_never_acted_on() -> Result<()> {
    if !gate::open("the_unit_that_listens_is_never_acted_on", Need::Bpf) {
        return Ok(());
    }
    // Removed when its last process is gone: redis is dropped before.
    let both = Unit::new("both")?;
    let redis = RedisServer::start()?;
    std::fs::write(both.processes(), redis.pid().to_string())?;
    let home = Home::new()?;
    home.configure(redis.port(), QUICK, &unit(&both, "true"))?;
    let daemon = home.start()?;
    let _leak = both.client(redis.port(), 60)?;
    daemon.says("owns the listening socket")?;
    ensure!(home.evidence().is_empty());
    Ok(())
}

#[test]
fn a_unit_has_levels_of_its_own() -> Result<()> {
    if !gate::open("a_unit_has_levels_of_its_own", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let (leaky, steady) = (Unit::new("leaky")?, Unit::new("steady")?);
    let home = Home::new()?;
    let own = "warning = 10\nleak = 20\ncritical = 30\nhold_up = \"0s\"\nhold_down = \"0s\"\n";
    let units = unit(&leaky, &leaky.killer()) + own + &unit(&steady, "exit 1");
    home.configure(redis.port(), QUICK, &units)?;
    let daemon = home.start()?;
    let _steady = steady.client(redis.port(), 9)?;
    let _leak = leaky.client(redis.port(), 31)?;

    let evidence = completed(&home, 0)?;
    ensure!(evidence["act"]["unit"] == leaky.name(), "{evidence:#}");
    let facts = &evidence["act"]["facts"];
    ensure!(facts["subject"]["unit"] == leaky.name(), "{facts:#}");
    ensure!(facts["thresholds"]["critical"] == 30, "{facts:#}");
    ensure!(facts["count"].as_u64() >= Some(30), "{facts:#}");
    // 80 both ends are no CRITICAL for the port.
    let port = format!("port {}", redis.port());
    let said = daemon.said();
    let of_port = |line: &&String| line.contains(&port) && line.contains("-> CRITICAL");
    ensure!(!said.iter().any(|line| of_port(&line)), "{said:#?}");
    Ok(())
}

#[test]
fn clients_that_are_missing_are_said() -> Result<()> {
    if !gate::open("clients_that_are_missing_are_said", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    home.configure(redis.port(), QUICK, "")?;
    home.change("expected_min = 0", "expected_min = 20")?;
    let daemon = home.start()?;
    daemon.says("clients are missing, 0 connections where 20 are expected")?;
    ensure!(daemon.status()?["subjects"][0]["missing"] == true);
    let _open: Vec<_> = (0..10)
        .map(|_| std::net::TcpStream::connect(redis.v4()))
        .collect();
    daemon.says("no clients are missing any more, 20 connections")?;
    Ok(())
}

#[test]
fn idle_connections_are_cut_off_before_anything_is_restarted() -> Result<()> {
    if !gate::open("idle_connections_are_cut_off_before", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let leaky = Unit::new("leaky")?;
    let home = Home::new()?;
    let units = format!(
        "[[unit]]\nname = \"{}\"\nactions = [\"client-kill\", \"exec\"]\n\
         exec = [\"/bin/false\"]\n",
        leaky.name()
    );
    let policy = format!("{QUICK}\nclient_kill_idle = \"0s\"");
    home.configure(redis.port(), &policy, &units)?;
    let daemon = home.start()?;
    daemon.says("redis is up")?;
    let _leak = leaky.client(redis.port(), 60)?;

    let evidence = completed(&home, 0)?;
    ensure!(evidence["act"]["rung"] == "client-kill", "{evidence:#}");
    ensure!(evidence["outcome"]["outcome"] == "done", "{evidence:#}");
    ensure!(evidence["verdict"]["verdict"] == "helped", "{evidence:#}");
    let killed = evidence["record"]["killed"].as_array().map(Vec::len);
    ensure!(killed >= Some(40), "{killed:?} were killed: {evidence:#}");
    daemon.says("-> HEALTHY")?;
    ensure!(home.evidence().len() == 1, "{:#?}", daemon.said());
    // The evidence has what Redis itself said of each connection.
    let openers = evidence["report"]["openers"].as_array().cloned();
    let leaker = openers
        .iter()
        .flatten()
        .find(|opener| opener["unit"] == leaky.name());
    let clients: Vec<_> = leaker
        .and_then(|leaker| leaker["sockets"].as_array())
        .into_iter()
        .flatten()
        .filter(|socket| socket["redis"]["age_s"].is_u64())
        .collect();
    ensure!(clients.len() >= 40, "{evidence:#}");
    Ok(())
}

#[test]
fn a_dry_run_says_what_it_would_do() -> Result<()> {
    if !gate::open("a_dry_run_says_what_it_would_do", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let leaky = Unit::new("leaky")?;
    let home = Home::new()?;
    let done = home.path("done");
    let exec = format!("touch {}", done.display());
    home.configure(redis.port(), QUICK, &unit(&leaky, &exec))?;
    let daemon = home.start_with(&["--dry-run"], &[])?;
    let _leak = leaky.client(redis.port(), 60)?;
    daemon.says("would be next")?;
    ensure!(daemon.end(libc::SIGTERM)?.success());
    ensure!(!done.exists());
    Ok(())
}

/// Without a systemd the restart fails, is said, and is tried again.
#[test]
fn a_restart_without_systemd_is_said_and_tried_again() -> Result<()> {
    let name = "a_restart_without_systemd_is_said_and_tried_again";
    if !gate::open(name, Need::Bpf) {
        return Ok(());
    }
    if std::path::Path::new("/run/systemd/private").exists() {
        gate::skip(name, "kernel of the host runs a systemd");
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let leaky = Unit::new("leaky")?;
    let home = Home::new()?;
    let policy = "retry_first = \"100ms\"\nretry_max = \"100ms\"\nmax_action_failures = 2";
    let units = format!("[[unit]]\nname = \"{}\"\n", leaky.name());
    home.configure(redis.port(), policy, &units)?;
    let daemon = home.start()?;
    let _leak = leaky.client(redis.port(), 60)?;
    daemon.says("attempt 1 to act on")?;
    daemon.says("MANUAL: 2 attempts to act on")?;
    let evidence = completed(&home, 0)?;
    ensure!(
        evidence["verdict"]["verdict"] == "not-begun",
        "{evidence:#}"
    );
    Ok(())
}
