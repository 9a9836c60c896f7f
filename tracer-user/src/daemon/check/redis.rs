//! What Redis itself says: whether it answers, its errors, its clients, and its latency.

use std::time::Duration;

use tokio::time::timeout;

use super::finding::{Finding, Grade, finding};
use crate::config::Config;
use crate::daemon::probing::Probing;
use crate::daemon::status::RedisStatus;
use crate::redis::health;
use crate::redis::probe::ProbeView;

/// Two INFOs a second apart, and some probes.
const PROBING: Duration = Duration::from_secs(4);

/// For a while, where no daemon does.
pub(super) async fn probe(config: &Config) -> Option<RedisStatus> {
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
pub(super) fn of_redis(
    config: &Config,
    redis: Option<&RedisStatus>,
    ours: Option<u32>,
) -> Vec<Finding> {
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
