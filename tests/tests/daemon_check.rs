//! `connleak check`: an exit code and a figure for everything, with and without the daemon.

use anyhow::{Context, Result, ensure};
use connleak_tests::daemon::Home;
use connleak_tests::gate::{self, Need};
use connleak_tests::server::RedisServer;
use connleak_tests::tracer::{self, Ended};
use serde_json::Value;

fn check(home: &Home) -> Result<Ended> {
    let config = home.config();
    let path = config.to_str().context("a path of text")?;
    tracer::run(&["check", "-o", "json", "--config", path])
}

/// The grade of each finding by its name.
fn grades(ended: &Ended) -> Result<Vec<(String, String)>> {
    let object: Value = serde_json::from_slice(&ended.stdout)?;
    let findings = object["findings"].as_array().context("findings")?;
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(findings
        .iter()
        .map(|it| (word(&it["name"]), word(&it["grade"])))
        .collect())
}

fn graded(grades: &[(String, String)], name: &str) -> String {
    let found = grades.iter().find(|(it, _)| it == name);
    found.map(|(_, grade)| grade.clone()).unwrap_or_default()
}

#[test]
fn check_grades_the_count_with_and_without_the_daemon() -> Result<()> {
    if !gate::open("check_grades_the_count", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    home.configure(
        redis.port(),
        "",
        "[check]\nservices = [\"no-such.service\"]\n",
    )?;
    let port = format!("port {}", redis.port());

    let ended = check(&home)?;
    let seen = grades(&ended)?;
    ensure!(graded(&seen, &port) == "ok", "{seen:?}");
    ensure!(graded(&seen, "redis") == "ok", "{seen:?}");
    ensure!(graded(&seen, "redis errors") == "ok", "{seen:?}");
    // No such service, or nobody to ask for it: either way it is not well.
    ensure!(ended.status.code() != Some(0), "{seen:?}");

    let _open: Vec<_> = (0..30)
        .map(|_| std::net::TcpStream::connect(redis.v4()))
        .collect();
    let ended = check(&home)?;
    let seen = grades(&ended)?;
    ensure!(graded(&seen, &port) == "critical", "{seen:?}");
    ensure!(ended.status.code() == Some(2), "{seen:?}");

    let daemon = home.start()?;
    daemon.says("redis is up")?;
    let ended = check(&home)?;
    let seen = grades(&ended)?;
    ensure!(graded(&seen, "daemon") == "ok", "{seen:?}");
    ensure!(graded(&seen, &port) == "critical", "{seen:?}");
    ensure!(ended.status.code() == Some(2), "{seen:?}");
    Ok(())
}
