//! The daemon's own metrics: its status as families, beside those of the report.

use super::status::{RedisStatus, Status, SubjectStatus, UsageStatus};
use crate::metrics::Family;
use crate::policy::level::Level;
use crate::redis::health::Answer;

const LEVELS: [Level; 4] = [Level::Healthy, Level::Warning, Level::Leak, Level::Critical];
/// Which of a probe's windows is told: a scrape a minute then misses no sample.
const WINDOW: usize = 2;

pub(super) fn families(status: &Status) -> Vec<Family> {
    let mut families = of_subjects(&status.subjects);
    families.extend([
        Family::gauge(
            "connleak_manual",
            "1 while nothing is done until a person acknowledges.",
        )
        .only(truth(status.manual.is_some())),
        Family::gauge(
            "connleak_failed_restarts",
            "Restarts in a row that did not help.",
        )
        .only(f64::from(status.failed_restarts)),
        Family::gauge(
            "connleak_cooldown_left_seconds",
            "Until the next restart is possible.",
        )
        .only(status.cooldown_left_s.unwrap_or(0.0)),
        Family::counter(
            "connleak_repaired_connections",
            "Connections that comparing with the kernel's own lists had to repair.",
        )
        .only(status.drift as f64),
        Family::gauge("connleak_resident_memory_bytes", "The daemon's own memory.")
            .only(status.resident_bytes.map_or(f64::NAN, |bytes| bytes as f64)),
    ]);
    families.extend(status.usage.iter().flat_map(of_usage));
    families.extend(status.redis.iter().flat_map(of_redis));
    families.extend(of_exports(status));
    families
}

fn of_usage(usage: &UsageStatus) -> [Family; 4] {
    let kernel_bytes = usage.kernel_bytes.map_or(f64::NAN, |bytes| bytes as f64);
    [
        Family::counter(
            "connleak_cpu_seconds",
            "User and system time of the daemon.",
        )
        .only(usage.cpu_s),
        Family::gauge(
            "connleak_kernel_memory_bytes",
            "What the kernel says it holds for the daemon: maps and programs.",
        )
        .only(kernel_bytes),
        Family::gauge("connleak_tracked_sockets", "Sockets that are tracked.")
            .only(usage.sockets as f64),
        Family::gauge(
            "connleak_tracked_sockets_max",
            "Sockets that may be tracked at the same time.",
        )
        .only(f64::from(usage.sockets_max)),
    ]
}

fn of_exports(status: &Status) -> [Family; 2] {
    let mut exported = Family::counter(
        "connleak_exported_reports",
        "Reports that a stream or a collector took.",
    );
    let mut dropped = Family::counter(
        "connleak_dropped_reports",
        "Reports that neither a stream nor a collector took, and that are gone.",
    );
    if let Some(stream) = &status.stream {
        exported.point(&[("to", "stream")], stream.written as f64);
        dropped.point(&[("to", "stream")], stream.dropped as f64);
    }
    if let Some(otlp) = &status.otlp {
        exported.point(&[("to", "otlp")], otlp.sent as f64);
        dropped.point(&[("to", "otlp")], otlp.dropped as f64);
    }
    [exported, dropped]
}

fn of_subjects(subjects: &[SubjectStatus]) -> Vec<Family> {
    let mut level = Family::gauge(
        "connleak_level",
        "1 for the level that a port or a unit is at, 0 for the others.",
    );
    let mut count = Family::gauge(
        "connleak_counted_connections",
        "The count that decides the level.",
    );
    let mut threshold = Family::gauge(
        "connleak_threshold_connections",
        "The count at which a level begins.",
    );
    let mut missing = Family::gauge(
        "connleak_clients_missing",
        "1 while there are fewer connections than expected.",
    );
    let mut blocked = Family::gauge(
        "connleak_action_blocked",
        "1 while something would be done and may not be.",
    );
    for it in subjects {
        let subject = ("subject", it.subject.as_str());
        for of in LEVELS {
            let name = of.name().to_lowercase();
            level.point(&[subject, ("level", &name)], truth(of == it.level));
        }
        count.point(&[subject], f64::from(it.count));
        for (of, begins) in [
            (Level::Warning, it.warning),
            (Level::Leak, it.leak),
            (Level::Critical, it.critical),
        ] {
            let name = of.name().to_lowercase();
            threshold.point(&[subject, ("level", &name)], f64::from(begins));
        }
        missing.point(&[subject], truth(it.missing));
        blocked.point(&[subject], truth(it.blocked.is_some()));
    }
    vec![level, count, threshold, missing, blocked]
}

fn of_redis(redis: &RedisStatus) -> Vec<Family> {
    let known = |number: Option<u64>| number.map_or(f64::NAN, |number| number as f64);
    let mut latency = Family::gauge(
        "connleak_redis_latency_seconds",
        "Latency of a probe of Redis over the last minute.",
    );
    let mut target = Family::gauge(
        "connleak_redis_target_met",
        "1 while a probe's latency meets its targets.",
    );
    for probe in &redis.probes {
        let name = ("probe", probe.name.as_str());
        if let Some(summary) = probe.windows[WINDOW] {
            for (statistic, us) in [
                ("average", summary.average_us),
                ("p50", summary.p50_us as f64),
                ("p99", summary.p99_us as f64),
                ("max", summary.max_us as f64),
            ] {
                latency.point(&[name, ("statistic", statistic)], us / 1e6);
            }
        }
        target.point(&[name], probe.target_met.map_or(f64::NAN, truth));
    }
    vec![
        Family::gauge("connleak_redis_up", "1 while Redis answers.")
            .only(truth(redis.state == Answer::Up)),
        Family::gauge(
            "connleak_redis_clients",
            "Connections that Redis itself counts.",
        )
        .only(known(redis.connected_clients)),
        Family::gauge(
            "connleak_redis_clients_limit",
            "Connections that Redis accepts at most.",
        )
        .only(known(redis.max_clients)),
        Family::gauge(
            "connleak_redis_used_memory_bytes",
            "Memory that Redis says it uses.",
        )
        .only(known(redis.used_memory_bytes)),
        latency,
        target,
    ]
}

fn truth(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}
