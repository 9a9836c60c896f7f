//! The daemon's history: read back by the verbs and by sqlite3, whole after kill -9.

use std::fs;
use std::net::TcpStream;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use connleak_tests::daemon::Home;
use connleak_tests::gate::{self, Need};
use connleak_tests::server::RedisServer;
use connleak_tests::tool::read_with;
use connleak_tests::{tracer, wait};
use serde_json::Value;

/// A sample a second.
fn configure(home: &Home, port: u16) -> Result<()> {
    home.configure(port, "", "")?;
    let text = fs::read_to_string(home.config())?;
    let quick = text.replace("interval = \"1h\"", "interval = \"1s\"");
    Ok(fs::write(home.config(), quick)?)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of text")
}

fn report(home: &Home, arguments: &[&str]) -> Result<Value> {
    let config = home.config();
    let mut all = vec!["report", "-o", "json", "--config", text(&config)?];
    all.extend(arguments);
    let ended = tracer::run(&all)?;
    ensure!(ended.status.success(), "{ended:?}");
    Ok(serde_json::from_slice(&ended.stdout)?)
}

fn sqlite3(home: &Home, query: &str) -> Result<String> {
    let file = home.path("history.db");
    read_with("sqlite3", &["-readonly", text(&file)?, query], "")
}

/// What this process has outstanding, as a report tells it.
fn own(report: &Value) -> Option<&Value> {
    let openers = report["openers"].as_array()?;
    openers.iter().find(|it| it["pid"] == std::process::id())
}

/// Waits until the history knows that this process has so many.
fn wait_for(home: &Home, outstanding: u64) -> Result<Value> {
    wait::until(&format!("{outstanding} in the history"), || {
        let report = report(home, &["--since", "10m"]).ok()?;
        (own(&report)?["outstanding"] == outstanding).then_some(report)
    })
}

#[test]
fn history_survives_kill_and_says_what_grew() -> Result<()> {
    if !gate::open("history_survives_kill_and_says_what_grew", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    configure(&home, redis.port())?;
    let daemon = home.start()?;
    let connect = || TcpStream::connect(redis.v4());
    let mut open: Vec<_> = (0..5).map(|_| connect()).collect();
    wait_for(&home, 5)?;
    daemon.end(libc::SIGKILL)?;
    ensure!(sqlite3(&home, "PRAGMA integrity_check")?.trim() == "ok");

    let daemon = home.start()?;
    open.extend((0..25).map(|_| connect()));
    let report_of_history = wait_for(&home, 30)?;
    daemon.says("HEALTHY -> ")?;
    let timeline = &report_of_history["timeline"];
    let counts: Vec<u64> = timeline["samples"]
        .as_array()
        .context("samples")?
        .iter()
        .filter_map(|it| it["outstanding"].as_u64())
        .collect();
    ensure!(counts.contains(&5) && counts.contains(&30), "{counts:?}");
    let stacks = own(&report_of_history).context("us")?["stacks"].as_array();
    ensure!(
        stacks.is_some_and(|stacks| stacks.iter().any(|it| it["site"]["function"].is_string())),
        "{stacks:?}"
    );

    // The live report brings the last hour with it.
    let socket = daemon.socket().to_owned();
    let live = report(&home, &["--socket", text(&socket)?])?;
    ensure!(own(&live).context("us")?["outstanding"] == 30, "{live:#}");
    wait::until("the level change is in the history", || {
        let live = report(&home, &["--socket", socket.to_str()?]).ok()?;
        let changes = live["timeline"]["level_changes"].as_array()?.clone();
        changes
            .iter()
            .any(|it| it["from"] == "HEALTHY")
            .then_some(())
    })?;

    let sum = "SELECT max(outstanding) FROM unit_sample";
    ensure!(sqlite3(&home, sum)?.trim() == "30");
    let mode = read_with("stat", &["-c", "%a", text(&home.path("history.db"))?], "")?;
    ensure!(mode.trim() == "600", "mode {mode}");

    // What a person asks after a bad night: what grew since then?
    let first = timeline["samples"].as_array().context("samples")?;
    let five = first
        .iter()
        .find(|it| it["outstanding"] == 5)
        .context("5")?;
    let at = five["at"].as_str().context("a time")?;
    let config = home.config();
    let diff = ["diff", at, "now", "--config", text(&config)?, "-o", "json"];
    let ended = tracer::run(&diff)?;
    let grown: Value = serde_json::from_slice(&ended.stdout)?;
    ensure!(ended.status.success() && grown["growth"] == 25, "{grown:#}");
    ensure!(
        grown["openers"][0]["pid"] == std::process::id(),
        "{grown:#}"
    );
    let mut failing = diff.to_vec();
    failing.push("--fail-on-growth");
    ensure!(tracer::run(&failing)?.status.code() == Some(1));

    daemon.end(libc::SIGKILL)?;
    // What was not yet moved to the file lies beside it, and would mend it.
    fs::remove_file(home.path("history.db-wal"))?;
    fs::write(
        home.path("history.db"),
        "this is no database any more, but long enough for one",
    )?;
    let refused = tracer::run(&["report", "--since", "1h", "--config", text(&config)?])?;
    ensure!(refused.status.code() == Some(2), "{refused:?}");
    ensure!(refused.stderr.len() == 1, "{refused:?}");
    let daemon = home.start()?;
    daemon.says("history.db.damaged")?;
    wait_for(&home, 30)?;
    Ok(())
}

#[test]
fn what_the_history_does_not_have_is_said_in_one_line() -> Result<()> {
    let folder = tempfile::TempDir::with_prefix("connleak-history-")?;
    let none = folder.path().join("none.db");
    for arguments in [
        vec!["report", "--since", "1h", "--history", text(&none)?],
        vec!["report", "--since", "yesterday"],
        vec!["report", "--between", "1h"],
        vec!["report", "--report", "/dev/null"],
        vec!["report", "--report", "/proc/version"],
        vec!["diff", "/nonexistent/a", "/nonexistent/b"],
        vec!["diff", "1h", "now", "--history", text(&none)?],
    ] {
        let ended = tracer::run(&arguments)?;
        ensure!(ended.status.code() == Some(2), "{arguments:?}: {ended:?}");
        ensure!(ended.stdout.is_empty(), "{arguments:?}: {ended:?}");
        ensure!(ended.stderr.len() == 1, "{arguments:?}: {ended:?}");
    }
    Ok(())
}
