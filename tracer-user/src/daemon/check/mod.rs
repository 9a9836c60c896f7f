//! The check: one line with its figure for each thing that must be well, with or without the daemon.

mod finding;
mod redis;
mod services;

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use super::control::{Answer, Request, ask};
use super::status::Status;
use crate::config::{Config, CountMode, Watch};
use crate::pipeline;
use crate::policy::level::{Level, LevelRule};
use finding::finding;
pub use finding::{Finding, Grade, worst};
use redis::{of_redis, probe};
use services::of_services;

/// Growth without the daemon is the difference of two looks.
const LOOKS_APART: Duration = Duration::from_secs(2);

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

#[cfg(test)]
mod tests {
    use super::*;

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
