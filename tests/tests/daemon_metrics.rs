//! The daemon's metrics, as promtool and a real Prometheus read them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use connleak_tests::client::{Client, Library};
use connleak_tests::daemon::{Daemon, Home};
use connleak_tests::gate::{self, Need};
use connleak_tests::prometheus::{Prometheus, check_metrics, dist, shipped_rules};
use connleak_tests::server::{RedisServer, free_port};
use connleak_tests::unit::Unit;
use connleak_tests::{http, wait};
use serde_json::Value;

const OPENMETRICS: &str = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";

/// A daemon that serves metrics; the port it does so on.
fn serving(redis: &RedisServer, home: &Home, more: &str) -> Result<(Daemon, SocketAddr)> {
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let export = format!("[export.prometheus]\nenabled = true\nlisten = \"{listen}\"\n{more}\n");
    home.configure(redis.port(), "", &export)?;
    let daemon = home.start()?;
    daemon.says("metrics are at")?;
    Ok((daemon, listen))
}

fn scrape(listen: SocketAddr) -> Result<String> {
    let answer = http::get(listen, "/metrics", &[])?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(answer.body)
}

fn metric_names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("connleak_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn promtool_finds_nothing_wrong_with_metrics_and_rules() -> Result<()> {
    if !gate::open("promtool_finds_nothing_wrong", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    let (_daemon, listen) = serving(&redis, &home, "top_pids = 5")?;
    let _client = Client::start(Library::Hiredis, redis.v4(), 5, 2)?;
    let page = wait::until("the client in the metrics", || {
        let page = scrape(listen).ok()?;
        page.contains("name=\"hiredis_pool\"").then_some(page)
    })?;
    check_metrics(&page)?;

    let output = Command::new("promtool")
        .args(["check", "rules"])
        .arg(shipped_rules())
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

#[test]
fn a_real_prometheus_scrapes_the_daemon_and_an_alert_fires_when_a_client_leaks() -> Result<()> {
    if !gate::open("a_real_prometheus_scrapes_the_daemon", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let leaky = Unit::new("leaky")?;
    let home = Home::new()?;
    let (_daemon, listen) = serving(&redis, &home, "")?;
    let prometheus = Prometheus::scraping(listen)?;
    let value = |expression: &str| -> Option<f64> {
        let series = prometheus.query(expression).ok()?;
        series.first()?["value"][1].as_str()?.parse().ok()
    };
    wait::until("a scrape that is up", || {
        (value("up{job=\"connleak\"}") == Some(1.0)).then_some(())
    })?;
    let fires = |name: &str| -> Result<Option<Value>> {
        let mut alerts = prometheus.firing()?.into_iter();
        Ok(alerts.find(|alert| alert["labels"]["alertname"] == name))
    };
    ensure!(fires("ConnleakLeak")?.is_none());

    // Both ends of thirty are sixty: LEAK begins at fifty.
    let _leak = leaky.client(redis.port(), 30)?;
    let alert = wait::until("ConnleakLeak fires", || fires("ConnleakLeak").ok()?)?;
    let subject = format!("port {}", redis.port());
    ensure!(alert["labels"]["subject"] == subject, "{alert:#}");
    let by_unit = format!(
        "sum(connleak_outstanding_connections{{unit=\"{}\"}})",
        leaky.name()
    );
    ensure!(value(&by_unit) == Some(30.0));
    ensure!(value("sum(connleak_opened_connections_total)") == Some(30.0));

    every_shipped_expression_is_understood(&prometheus, listen)
}

/// What rules and dashboard ask for exists, in words that Prometheus understands.
fn every_shipped_expression_is_understood(
    prometheus: &Prometheus,
    listen: SocketAddr,
) -> Result<()> {
    let text = std::fs::read_to_string(dist().join("grafana/connleak.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let mut asked = metric_names(&std::fs::read_to_string(shipped_rules())?);
    for target in targets.flatten() {
        let expression = target["expr"].as_str().context("an expression")?;
        asked.extend(metric_names(expression));
        let expression = expression
            .replace("$instance", ".*")
            .replace("$__rate_interval", "1m");
        prometheus.query(&expression)?;
    }
    let told = metric_names(&scrape(listen)?);
    // Of exports that this daemon does not have.
    asked.remove("connleak_dropped_reports_total");
    let unknown: Vec<_> = asked.difference(&told).collect();
    ensure!(unknown.is_empty(), "nobody tells {unknown:?}");
    Ok(())
}

#[test]
fn a_scraper_gets_openmetrics_where_it_asks_and_the_frames_of_a_stack() -> Result<()> {
    if !gate::open("a_scraper_gets_openmetrics_where_it_asks", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    let (_daemon, listen) = serving(&redis, &home, "")?;
    let client = Client::start(Library::Hiredis, redis.v4(), 4, 0)?;
    let (answer, line) = wait::until("the client's stack in the metrics", || {
        let answer = http::get(listen, "/metrics", &[OPENMETRICS]).ok()?;
        let mut lines = answer.body.lines();
        let line = lines.find(|line| line.contains("{stack=\"") && line.ends_with(" 4"))?;
        let line = line.to_owned();
        Some((answer, line))
    })?;
    ensure!(
        answer
            .head
            .contains("content-type: application/openmetrics-text; version=1.0.0")
    );
    ensure!(answer.body.ends_with("# EOF\n"), "{}", answer.body);
    ensure!(!answer.body.contains("pid="), "no process was asked for");

    let (_, rest) = line.split_once("{stack=\"").context("a stack")?;
    let (id, _) = rest.split_once('"').context("its ID")?;
    let details = http::get(listen, &format!("/stacks/{id}"), &[])?;
    let details: Value = serde_json::from_str(&details.body)?;
    ensure!(details["openers"][0]["pid"] == client.pid(), "{details:#}");
    ensure!(details["openers"][0]["outstanding"] == 4, "{details:#}");
    ensure!(
        details["frames"]
            .as_array()
            .is_some_and(|frames| frames.len() > 2)
    );

    for (method, path, status) in [
        ("GET", "/healthz", 200),
        ("GET", "/stacks/ffffffff", 404),
        ("GET", "/", 404),
        ("POST", "/metrics", 405),
    ] {
        let answer = http::send(listen, method, path, &[])?;
        ensure!(answer.status == status, "{method} {path}: {answer:?}");
    }
    Ok(())
}

#[test]
fn ten_thousand_processes_leave_the_number_of_series_as_it_was() -> Result<()> {
    if !gate::open(
        "ten_thousand_processes_leave_the_number_of_series",
        Need::Bpf,
    ) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    let (_daemon, listen) = serving(&redis, &home, "top_pids = 3")?;
    let ports = redis.port().to_string();
    let clients = |count: usize| -> Result<()> {
        // Each is a process of its own that connects, and ends; a hundred at a time.
        let script = format!(
            "for i in $(seq {count}); do exec 3<>/dev/tcp/127.0.0.1/{ports} & \
             ((i % 100)) || wait; done; wait"
        );
        let status = Command::new("bash").args(["-c", &script]).status()?;
        ensure!(status.success());
        Ok(())
    };
    let opened = |at_least: f64| {
        wait::until("the connections in the metrics", || {
            let page = scrape(listen).ok()?;
            let counted: f64 = page
                .lines()
                .filter(|line| line.starts_with("connleak_opened_connections_total"))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum();
            (counted >= at_least).then_some(page)
        })
    };
    clients(20)?;
    let before = opened(20.0)?;
    clients(10_000)?;
    let after = opened(10_020.0)?;
    let series = |page: &str| page.lines().filter(|line| !line.starts_with('#')).count();
    // The three processes with a series, and the stack of each, at most.
    ensure!(
        series(&after) <= series(&before) + 3 + 3,
        "{before}\n---\n{after}"
    );
    Ok(())
}
