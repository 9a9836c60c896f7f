//! The checks that one value alone cannot fail: order, names, what needs what.

use std::collections::BTreeSet;
use std::time::Duration;

use super::model::{Config, Unit, Verdicts, Watch};
use super::problem::{Block, Problem, Step};
use super::redis::{Probe, Redis};
use super::rung::Rung;
use super::site::SiteRule;
use super::unit_name::check_unit_name;

pub(super) fn check(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut ports = BTreeSet::new();
    let mut root = Block::at(Vec::new(), &mut problems);
    root.require(!config.watch.0.is_empty(), "watch", || {
        "no port is watched".to_owned()
    });
    for (index, watch) in config.watch.0.iter().enumerate() {
        let mut block = Block::at(vec![Step::Key("watch"), Step::Index(index)], &mut problems);
        block.require(ports.insert(watch.port), "port", || {
            format!("port {} is watched twice", watch.port)
        });
        check_watch(&mut block, watch);
    }
    let mut names = BTreeSet::new();
    for (index, unit) in config.unit.iter().enumerate() {
        let mut block = Block::at(vec![Step::Key("unit"), Step::Index(index)], &mut problems);
        block.require(names.insert(&unit.name), "name", || {
            format!("unit \"{}\" is there twice", unit.name)
        });
        check_unit(&mut block, unit);
    }
    let mut names = BTreeSet::new();
    for (index, probe) in config.probe.0.iter().enumerate() {
        let mut block = Block::at(vec![Step::Key("probe"), Step::Index(index)], &mut problems);
        block.require(names.insert(&probe.name), "name", || {
            format!("probe \"{}\" is there twice", probe.name)
        });
        check_probe(&mut block, probe);
    }
    check_sites(&config.site, &mut problems);
    check_policy(
        &mut Block::at(vec![Step::Key("policy")], &mut problems),
        config,
    );
    check_verdicts(
        &mut Block::at(vec![Step::Key("verdict")], &mut problems),
        &config.verdict,
    );
    check_redis(
        &mut Block::at(vec![Step::Key("redis")], &mut problems),
        &config.redis,
    );
    check_history(
        &mut Block::at(vec![Step::Key("history")], &mut problems),
        &config.history,
    );
    check_rest(config, &mut problems);
    problems
}

fn check_order(block: &mut Block<'_>, warning: u32, leak: u32, critical: u32) {
    block.require(warning >= 1, "warning", || {
        "warning must be at least 1".to_owned()
    });
    block.require(warning < leak, "leak", || {
        format!("thresholds must rise: warning = {warning} is not below leak = {leak}")
    });
    block.require(leak < critical, "critical", || {
        format!("thresholds must rise: leak = {leak} is not below critical = {critical}")
    });
}

fn check_range(block: &mut Block<'_>, min: u32, baseline: u32, max: u32) {
    block.require(min <= max, "expected_max", || {
        format!("expected_min = {min} is above expected_max = {max}")
    });
    block.require(
        (min..=max).contains(&baseline) || min > max,
        "baseline",
        || format!("baseline = {baseline} is outside the expected {min} to {max}"),
    );
}

fn check_watch(block: &mut Block<'_>, watch: &Watch) {
    check_order(block, watch.warning, watch.leak, watch.critical);
    if watch.expected_min > 0 {
        check_range(
            block,
            watch.expected_min,
            watch.baseline,
            watch.expected_max,
        );
    }
}

fn check_unit(block: &mut Block<'_>, unit: &Unit) {
    if let Err(message) = check_unit_name(&unit.name) {
        block.require(false, "name", || message);
    }
    if let Some(levels) = unit.own_levels() {
        check_watch(block, &levels);
    }
    let alone = unit.actions.len() == 1 || !unit.actions.contains(&Rung::None);
    block.require(alone, "actions", || "\"none\" stands alone".to_owned());
    block.require(!unit.actions.is_empty(), "actions", || {
        "no action is given; write [\"none\"] to observe only".to_owned()
    });
    let distinct: BTreeSet<_> = unit.actions.iter().collect();
    block.require(distinct.len() == unit.actions.len(), "actions", || {
        "an action is there twice".to_owned()
    });
    let runs = unit.actions.contains(&Rung::Exec);
    block.require(!runs || !unit.exec.is_empty(), "actions", || {
        "\"exec\" needs a command: exec = [\"/path/to/command\"]".to_owned()
    });
    // A relative path would be looked up in whatever directory and PATH the daemon has, as root.
    let absolute = unit
        .exec
        .first()
        .is_none_or(|program| program.starts_with('/'));
    block.require(absolute, "exec", || {
        "the command must be an absolute path".to_owned()
    });
}

fn check_probe(block: &mut Block<'_>, probe: &Probe) {
    block.require(!probe.name.is_empty(), "name", || {
        "a probe needs a name".to_owned()
    });
    block.require(!probe.command.is_empty(), "command", || {
        "the command is empty".to_owned()
    });
    let least = Duration::from_millis(100);
    block.require(probe.interval >= least, "interval", || {
        "a probe runs at most every 100ms".to_owned()
    });
    let window_s = probe.target_window.as_secs_f64();
    block.require(
        [5.0, 30.0, 60.0].contains(&window_s),
        "target_window",
        || "target_window is one of \"5s\", \"30s\", \"1m\"".to_owned(),
    );
    for argument in &probe.command {
        if let Err(message) = crate::config::template::parse(argument) {
            block.require(false, "command", || message);
        }
    }
}

fn check_policy(block: &mut Block<'_>, config: &Config) {
    let policy = &config.policy;
    for (key, value) in [
        ("settle_growth_per_minute", policy.settle_growth_per_minute),
        ("min_growth_per_minute", policy.min_growth_per_minute),
        (
            "max_error_replies_per_minute",
            policy.max_error_replies_per_minute,
        ),
        ("max_rejected_per_minute", policy.max_rejected_per_minute),
    ] {
        block.require(value >= 0.0 && value.is_finite(), key, || {
            format!("{key} = {value} is below zero")
        });
    }
    let share = policy.min_growth_share;
    block.require((0.0..=1.0).contains(&share), "min_growth_share", || {
        format!("min_growth_share = {share} is outside 0.0 to 1.0")
    });
    for (key, value) in [
        ("max_failed_restarts", policy.max_failed_restarts),
        ("max_action_failures", policy.max_action_failures),
        ("max_daemon_starts", policy.max_daemon_starts),
    ] {
        block.require(value >= 1, key, || format!("{key} must be at least 1"));
    }
    block.require(policy.retry_first <= policy.retry_max, "retry_max", || {
        "retry_first is longer than retry_max".to_owned()
    });
    block.require(!policy.retry_first.is_zero(), "retry_first", || {
        "retry_first must not be zero".to_owned()
    });
}

fn check_verdicts(block: &mut Block<'_>, verdicts: &Verdicts) {
    // Points of a count's past lie a second apart, and are kept for three windows.
    let (shortest, longest) = (Duration::from_secs(5), Duration::from_secs(300));
    block.require(
        (shortest..=longest).contains(&verdicts.window),
        "window",
        || "window is from \"5s\" to \"5m\"".to_owned(),
    );
    block.require(!verdicts.old_after.is_zero(), "old_after", || {
        "old_after must not be zero".to_owned()
    });
    for (key, value) in [
        ("min_growth_per_minute", verdicts.min_growth_per_minute),
        ("churn_per_minute", verdicts.churn_per_minute),
    ] {
        block.require(value > 0.0 && value.is_finite(), key, || {
            format!("{key} = {value} is not above zero")
        });
    }
    let share = verdicts.max_closed_share;
    block.require((0.0..=1.0).contains(&share), "max_closed_share", || {
        format!("max_closed_share = {share} is outside 0.0 to 1.0")
    });
}

fn check_history(block: &mut Block<'_>, history: &super::model::History) {
    let least = Duration::from_secs(1);
    block.require(history.interval >= least, "interval", || {
        "interval is less than \"1s\"".to_owned()
    });
}

fn check_redis(block: &mut Block<'_>, redis: &Redis) {
    if let Err(message) = check_url(&redis.url) {
        block.require(false, "url", || message);
    }
    block.require(
        redis.password_file.is_none() || redis.password_credential.is_none(),
        "password_credential",
        || "give password_file or password_credential, not both".to_owned(),
    );
    let credential = redis.password_credential.as_deref().unwrap_or("");
    block.require(!credential.contains('/'), "password_credential", || {
        "a credential has a name, not a path; for a path use password_file".to_owned()
    });
    block.require(
        redis.cert_file.is_some() == redis.key_file.is_some(),
        "cert_file",
        || "cert_file and key_file go together".to_owned(),
    );
    let tls = redis.url.starts_with("rediss://");
    block.require(tls || redis.ca_file.is_none(), "ca_file", || {
        "ca_file needs TLS: a rediss:// url".to_owned()
    });
    block.require(
        redis.sentinels.is_empty() || redis.sentinel_master.is_some(),
        "sentinels",
        || "sentinels need sentinel_master, the name of the master they watch".to_owned(),
    );
    block.require(!redis.timeout.is_zero(), "timeout", || {
        "timeout must not be zero".to_owned()
    });
}

/// The url is shown in logs and status: a password in it would be too.
fn check_url(url: &str) -> Result<(), String> {
    let schemes = ["redis://", "rediss://", "unix://", "redis+unix://"];
    let Some(rest) = schemes.iter().find_map(|scheme| url.strip_prefix(scheme)) else {
        return Err("the url must begin with redis://, rediss:// or unix://".to_owned());
    };
    if rest.contains('@') || rest.contains("pass=") {
        return Err("no user or password in the url; use username and password_file".to_owned());
    }
    if url.starts_with("redis") && !url.starts_with("redis+unix") && rest.is_empty() {
        return Err("the url has no host".to_owned());
    }
    Ok(())
}

/// Each rule is tried on each frame.
const SITE_RULES_MAX: usize = 256;

fn check_sites(rules: &[SiteRule], problems: &mut Vec<Problem>) {
    let mut root = Block::at(Vec::new(), problems);
    root.require(rules.len() <= SITE_RULES_MAX, "site", || {
        format!("more than {SITE_RULES_MAX} site rules")
    });
    for (index, rule) in rules.iter().enumerate() {
        let mut block = Block::at(vec![Step::Key("site"), Step::Index(index)], problems);
        let names_something = rule.pattern.bytes().any(|byte| byte != b'*');
        block.require(names_something, "pattern", || {
            "the pattern matches every frame: write a part of the name, such as \"*/redis_pool.py\""
                .to_owned()
        });
    }
}

fn check_rest(config: &Config, problems: &mut Vec<Problem>) {
    let mut block = Block::at(vec![Step::Key("check")], problems);
    let share = config.check.max_clients_share;
    block.require((0.0..=1.0).contains(&share), "max_clients_share", || {
        format!("max_clients_share = {share} is outside 0.0 to 1.0")
    });
    for service in &config.check.services {
        if let Err(message) = check_unit_name(service) {
            block.require(false, "services", || message);
        }
    }
    let mut block = Block::at(vec![Step::Key("daemon")], problems);
    for (key, path) in [
        ("socket", &config.daemon.socket),
        ("state_dir", &config.daemon.state_dir),
        ("evidence_dir", &config.daemon.evidence_dir),
    ] {
        block.require(path.is_absolute(), key, || {
            format!("{key} must be an absolute path")
        });
    }
    let mut block = Block::at(vec![Step::Key("limits")], problems);
    let limits = &config.limits;
    // The kernel takes a ring buffer of a power of two of pages only.
    let ring = limits.ring_bytes;
    block.require(ring.is_power_of_two() && ring >= 4096, "ring_bytes", || {
        format!("ring_bytes = {ring} is no power of two of at least 4KiB")
    });
    block.require(limits.stack_bytes <= 64 << 10, "stack_bytes", || {
        "stack_bytes is above 64KiB, the most that one event can carry".to_owned()
    });
    block.require(limits.max_sockets >= 1, "max_sockets", || {
        "max_sockets must be at least 1".to_owned()
    });
    let percent = limits.background_cpu_percent;
    let wide = || format!("background_cpu_percent = {percent} is not between 1 and 100");
    let range = (1..=100).contains(&percent);
    block.require(range, "background_cpu_percent", wide);
    check_export(&config.export, problems);
}

fn check_export(export: &super::export::Export, problems: &mut Vec<Problem>) {
    let mut block = Block::at(vec![Step::Key("export"), Step::Key("prometheus")], problems);
    let prometheus = &export.prometheus;
    let loopback = prometheus.listen.ip().to_canonical().is_loopback();
    block.require(loopback || prometheus.public, "listen", || {
        format!(
            "listen = {} is not loopback: anyone who reaches it can read; say public = true if \
             that is meant",
            prometheus.listen
        )
    });
    block.require(prometheus.top_pids <= 1000, "top_pids", || {
        "top_pids is above 1000: every process is a series".to_owned()
    });
    let least = Duration::from_secs(1);
    let often = || "interval must be at least 1s: a report looks at every connection".to_owned();
    let mut block = Block::at(vec![Step::Key("export"), Step::Key("otlp")], problems);
    block.require(export.otlp.interval >= least, "interval", often);
    let http = export.otlp.endpoint.starts_with("http://");
    block.require(http, "endpoint", || {
        "the endpoint must begin with http://; for TLS let a collector on this host forward"
            .to_owned()
    });
    let mut block = Block::at(vec![Step::Key("export"), Step::Key("stream")], problems);
    block.require(export.stream.interval >= least, "interval", often);
    block.require(!export.stream.key.is_empty(), "key", || {
        "key must not be empty".to_owned()
    });
    if let Err(message) = check_url(&export.stream.url) {
        block.require(false, "url", || message);
    }
}
