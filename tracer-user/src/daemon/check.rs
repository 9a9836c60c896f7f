//! The check: one line with its figure for each thing that must be well, with or without the daemon.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::control::{Answer, Request, ask};
use super::probing::Probing;
use super::status::{RedisStatus, Status};
use crate::action::restart::Systemd;
use crate::config::{Config, CountMode, Watch};
use crate::pipeline;
use crate::policy::level::{Level, LevelRule};
use crate::redis::health;
use crate::redis::probe::ProbeView;

/// Growth without the daemon is the difference of two looks.
const LOOKS_APART: Duration = Duration::from_secs(2);
/// Two INFOs a second apart, and some probes.
const PROBING: Duration = Duration::from_secs(4);
const JOURNAL: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl Grade {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }

    /// As monitoring systems have it.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }

    /// What is known to be wrong outweighs what is not known.
    const fn weight(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Unknown => 1,
            Self::Warning => 2,
            Self::Critical => 3,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub name: String,
    pub grade: Grade,
    pub figure: String,
}

/// The worst of them.
pub fn worst(findings: &[Finding]) -> Grade {
    let grades = findings.iter().map(|finding| finding.grade);
    grades
        .max_by_key(|grade| grade.weight())
        .unwrap_or(Grade::Unknown)
}

pub async fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let asked = ask(&config.daemon.socket, Request::Status).await;
    let mut ours = None;
    let redis = match asked {
        Ok(Answer::Status(status)) => {
            findings.push(of_daemon(&status));
            for watch in &config.watch.0 {
                findings.extend(of_port(config, watch, &status));
            }
            let ports = status.ports.iter();
            ours = Some(ports.fold(0u32, |sum, port| {
                sum.saturating_add(port.established_client_ends)
            }));
            status.redis
        }
        Ok(_) | Err(_) => {
            findings.push(finding(
                "daemon",
                Grade::Ok,
                "not running; looked without it",
            ));
            let (counts, redis) = tokio::join!(look_twice(config), probe(config));
            findings.extend(counts);
            redis
        }
    };
    findings.extend(of_redis(config, redis.as_ref(), ours));
    findings.extend(of_services(config).await);
    findings
}

fn finding(name: &str, grade: Grade, figure: impl Into<String>) -> Finding {
    Finding {
        name: name.to_owned(),
        grade,
        figure: figure.into(),
    }
}

fn of_daemon(status: &Status) -> Finding {
    match &status.manual {
        Some(manual) => finding(
            "daemon",
            Grade::Critical,
            format!("MANUAL for {:.0} s: {}", manual.for_s, manual.cause),
        ),
        None => finding("daemon", Grade::Ok, format!("watching, pid {}", status.pid)),
    }
}

fn of_port(config: &Config, watch: &Watch, status: &Status) -> Vec<Finding> {
    let name = format!("port {}", watch.port);
    let Some(subject) = status.subjects.iter().find(|it| it.subject == name) else {
        let figure = "the daemon does not watch it";
        return vec![finding(&name, Grade::Unknown, figure)];
    };
    let grows = status
        .openers
        .iter()
        .filter(|it| it.port == watch.port)
        .max_by(|a, b| a.growth_per_minute.total_cmp(&b.growth_per_minute));
    let rate = grows.map_or(0.0, |it| it.growth_per_minute);
    let who = grows.map_or_else(String::new, |it| {
        let who = it.unit.as_ref().or(it.name.as_ref());
        format!(" in {} (pid {})", who.map_or("?", String::as_str), it.pid)
    });
    vec![
        of_count(watch, subject.count),
        of_growth(config, watch, subject.count, rate, &who),
    ]
}

fn of_count(watch: &Watch, count: u32) -> Finding {
    let level = LevelRule::from(watch).thresholds.level(count);
    let few = count < watch.expected_min;
    let grade = match level {
        Level::Healthy if few => Grade::Warning,
        Level::Healthy => Grade::Ok,
        Level::Warning => Grade::Warning,
        Level::Leak | Level::Critical => Grade::Critical,
    };
    let missing = if few { ", clients are missing" } else { "" };
    let expected = match watch.expected_min {
        0 => String::new(),
        min => format!(", {min}-{} expected", watch.expected_max),
    };
    let name = format!("port {}", watch.port);
    finding(
        &name,
        grade,
        format!("{count} connections, {level}{expected}{missing}"),
    )
}

/// A pool that fills up within its range may.
fn of_growth(config: &Config, watch: &Watch, count: u32, rate: f64, who: &str) -> Finding {
    let in_range = count <= watch.expected_max.min(watch.warning.saturating_sub(1));
    let grows = rate > config.policy.min_growth_per_minute;
    let grade = match grows && !in_range {
        true => Grade::Warning,
        false => Grade::Ok,
    };
    let who = if grows { who } else { "" };
    let name = format!("growth {}", watch.port);
    finding(&name, grade, format!("{rate:.1} connections a minute{who}"))
}

async fn look_twice(config: &Config) -> Vec<Finding> {
    let first = look(config);
    sleep(LOOKS_APART).await;
    let (first, second) = match (first, look(config)) {
        (Ok(first), Ok(second)) => (first, second),
        (Err(error), _) | (_, Err(error)) => {
            let name = |watch: &Watch| format!("port {}", watch.port);
            let figure = format!("{error:#}");
            let unknown = |watch| finding(&name(watch), Grade::Unknown, &*figure);
            return config.watch.0.iter().map(unknown).collect();
        }
    };
    let mut findings = Vec::new();
    for (watch, (before, after)) in config.watch.0.iter().zip(first.into_iter().zip(second)) {
        let gained = f64::from(after) - f64::from(before);
        let rate = gained * 60.0 / LOOKS_APART.as_secs_f64();
        findings.push(of_count(watch, after));
        findings.push(of_growth(config, watch, after, rate, ""));
    }
    findings
}

/// The count of each watched port.
fn look(config: &Config) -> Result<Vec<u32>> {
    let counts = config.watch.0.iter().map(|watch| {
        let totals = pipeline::snapshot(&[watch.port], None)?.report.totals;
        let count = match watch.count {
            CountMode::BothEnds => totals.established_both_ends,
            CountMode::ClientEnds => totals.established_client_ends,
        };
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    });
    counts.collect()
}

async fn probe(config: &Config) -> Option<RedisStatus> {
    let mut config = config.clone();
    config.redis.info_interval = Duration::from_secs(1);
    for probe in &mut config.probe.0 {
        probe.interval = probe.interval.min(Duration::from_millis(200));
    }
    let mut probing = Probing::start(&config).ok()?;
    let known = async {
        loop {
            Probing::next(&mut probing).await;
            let report = Probing::report(&probing);
            if report.is_some_and(|report| report.rates.error_replies_per_minute.is_some()) {
                return;
            }
        }
    };
    // A Redis that says less has said all it will by then.
    let _ = timeout(PROBING, known).await;
    Probing::report(&probing).map(|report| RedisStatus::of(&report))
}

/// `ours`: the connections that were opened from this host, where the daemon knows them.
fn of_redis(config: &Config, redis: Option<&RedisStatus>, ours: Option<u32>) -> Vec<Finding> {
    let Some(redis) = redis else {
        return vec![finding("redis", Grade::Unknown, "not probed")];
    };
    let grade = match redis.state {
        health::Answer::Up => Grade::Ok,
        health::Answer::Unknown => Grade::Unknown,
        health::Answer::Denied | health::Answer::Full | health::Answer::Loading => Grade::Warning,
        health::Answer::Down | health::Answer::Hung => Grade::Critical,
    };
    let cause = redis.cause.as_ref().map(|cause| format!(": {cause}"));
    let state = format!("{}{}", redis.state.name(), cause.unwrap_or_default());
    let mut findings = vec![finding("redis", grade, state)];
    if redis.state != health::Answer::Up {
        return findings;
    }
    let policy = &config.policy;
    findings.push(of_rate(
        "redis errors",
        redis.error_replies_per_minute,
        policy.max_error_replies_per_minute,
    ));
    findings.push(of_rate(
        "redis rejects",
        redis.rejected_per_minute,
        policy.max_rejected_per_minute,
    ));
    findings.push(of_clients(config.check.max_clients_share, redis, ours));
    findings.extend(redis.probes.iter().map(of_probe));
    findings
}

/// A Redis that is full refuses everybody, not only the one that leaks.
fn of_clients(share: f64, redis: &RedisStatus, ours: Option<u32>) -> Finding {
    let name = "redis clients";
    let (Some(connected), Some(most)) = (redis.connected_clients, redis.max_clients) else {
        return finding(name, Grade::Unknown, "this redis does not say");
    };
    let grade = match connected as f64 > share * most as f64 {
        true => Grade::Warning,
        false => Grade::Ok,
    };
    let ours = ours.map(|ours| format!(", {ours} opened from here"));
    let figure = format!("{connected} of {most}{}", ours.unwrap_or_default());
    finding(name, grade, figure)
}

fn of_rate(name: &str, rate: Option<f64>, limit: f64) -> Finding {
    match rate {
        Some(rate) if rate > limit => {
            let figure = format!("{rate:.0} a minute, {limit:.0} allowed");
            finding(name, Grade::Warning, figure)
        }
        Some(rate) => finding(name, Grade::Ok, format!("{rate:.0} a minute")),
        None => finding(name, Grade::Unknown, "this redis does not say"),
    }
}

fn of_probe(probe: &ProbeView) -> Finding {
    let name = format!("latency {}", probe.name);
    if let Some(error) = &probe.error {
        return finding(&name, Grade::Warning, error.clone());
    }
    let Some(summary) = probe.windows.iter().rev().flatten().next() else {
        return finding(&name, Grade::Unknown, "no samples");
    };
    let grade = match probe.target_met {
        Some(false) => Grade::Warning,
        Some(true) | None => Grade::Ok,
    };
    let figure = format!(
        "average {:.3} ms, P99 {:.3} ms over {} s",
        summary.average_us / 1e3,
        summary.p99_us as f64 / 1e3,
        summary.window_s
    );
    finding(&name, grade, figure)
}

async fn of_services(config: &Config) -> Vec<Finding> {
    let services = &config.check.services;
    if services.is_empty() {
        return Vec::new();
    }
    let systemd = Systemd::connect().await;
    let mut findings = Vec::new();
    for service in services {
        let status = match &systemd {
            Ok(systemd) => systemd.status(service).await.map_err(|it| it.to_string()),
            Err(error) => Err(error.to_string()),
        };
        findings.push(match status {
            Ok(status) => {
                let grade = match status.active.as_str() {
                    "active" => Grade::Ok,
                    "activating" | "reloading" => Grade::Warning,
                    _ => Grade::Critical,
                };
                finding(service, grade, format!("{} {}", status.active, status.sub))
            }
            Err(error) => finding(service, Grade::Unknown, error),
        });
        findings.push(of_journal(service, config.check.journal_window).await);
    }
    findings
}

async fn of_journal(service: &str, window: Duration) -> Finding {
    let name = format!("journal {service}");
    let since = format!("--since=-{}s", window.as_secs());
    let reading = Command::new("journalctl")
        .args(["--quiet", "--no-pager", "--output=cat", "--priority=err"])
        .args(["--unit", service, &since])
        .kill_on_drop(true)
        .output();
    let output = match timeout(JOURNAL, reading).await {
        Ok(Ok(output)) if output.status.success() => output,
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let figure = format!("journalctl failed: {}", said.lines().next().unwrap_or(""));
            return finding(&name, Grade::Unknown, figure);
        }
        Ok(Err(error)) => {
            let figure = format!("failed to run journalctl: {error}");
            return finding(&name, Grade::Unknown, figure);
        }
        Err(_) => return finding(&name, Grade::Unknown, "journalctl gave no answer"),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = text.lines().filter(|line| !line.is_empty()).count();
    let grade = if errors == 0 {
        Grade::Ok
    } else {
        Grade::Warning
    };
    let minutes = window.as_secs() / 60;
    let last = text.lines().next_back().map(|line| format!(": {line}"));
    let figure = format!(
        "{errors} lines of errors in {minutes} min{}",
        last.unwrap_or_default()
    );
    finding(&name, grade, figure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_outweighs_what_is_unknown() {
        let of = |grades: &[Grade]| {
            let findings: Vec<_> = grades.iter().map(|it| finding("", *it, "")).collect();
            worst(&findings)
        };
        assert_eq!(of(&[Grade::Ok, Grade::Unknown]), Grade::Unknown);
        assert_eq!(of(&[Grade::Warning, Grade::Unknown]), Grade::Warning);
        assert_eq!(of(&[Grade::Critical, Grade::Warning]), Grade::Critical);
        assert_eq!(of(&[Grade::Ok]), Grade::Ok);
    }

    #[test]
    fn a_count_is_graded_by_its_level_and_its_range() {
        let watch = Watch::default();
        let grades = [10, 25, 30, 60, 100].map(|count| of_count(&watch, count).grade);
        let expected = [
            Grade::Warning,
            Grade::Ok,
            Grade::Warning,
            Grade::Critical,
            Grade::Critical,
        ];
        assert_eq!(grades, expected);
    }
}
