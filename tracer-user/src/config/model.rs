//! The model of the configuration: one struct a section, its defaults those of `default.toml`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::export::Export;
use super::redis::{ProbeList, Redis};
use super::rung::Rung;
use super::site::SiteRule;
use super::{duration, port, size};

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub watch: WatchList,
    pub unit: Vec<Unit>,
    pub site: Vec<SiteRule>,
    pub policy: Policy,
    pub verdict: Verdicts,
    pub redis: Redis,
    pub probe: ProbeList,
    pub check: Check,
    pub daemon: Daemon,
    pub limits: Limits,
    pub history: History,
    pub export: Export,
}

/// The watched ports; 6379 where the file names none.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct WatchList(pub Vec<Watch>);

impl Default for WatchList {
    fn default() -> Self {
        Self(vec![Watch::default()])
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CountMode {
    #[default]
    BothEnds,
    ClientEnds,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Watch {
    #[serde(deserialize_with = "port::deserialize")]
    pub port: u16,
    pub count: CountMode,
    pub warning: u32,
    pub leak: u32,
    pub critical: u32,
    pub expected_min: u32,
    pub expected_max: u32,
    pub baseline: u32,
    #[serde(deserialize_with = "duration::deserialize")]
    pub hold_up: Duration,
    #[serde(deserialize_with = "duration::deserialize")]
    pub hold_down: Duration,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            port: 6379,
            count: CountMode::BothEnds,
            warning: 26,
            leak: 50,
            critical: 100,
            expected_min: 20,
            expected_max: 30,
            baseline: 25,
            hold_up: Duration::from_secs(10),
            hold_down: Duration::from_secs(30),
        }
    }
}

/// A unit that may be acted on.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    pub name: String,
    #[serde(default = "restart_only")]
    pub actions: Vec<Rung>,
    pub warning: Option<u32>,
    pub leak: Option<u32>,
    pub critical: Option<u32>,
    pub expected_min: Option<u32>,
    pub expected_max: Option<u32>,
    pub baseline: Option<u32>,
    #[serde(default, deserialize_with = "duration::optional::deserialize")]
    pub hold_up: Option<Duration>,
    #[serde(default, deserialize_with = "duration::optional::deserialize")]
    pub hold_down: Option<Duration>,
    #[serde(default)]
    pub exec: Vec<String>,
    #[serde(default = "one_minute", deserialize_with = "duration::deserialize")]
    pub exec_timeout: Duration,
}

impl Unit {
    /// Levels of its own, where the file gives it any; what is left out is a port's default.
    pub fn own_levels(&self) -> Option<Watch> {
        let own = [self.warning, self.leak, self.critical, self.expected_min];
        if own.iter().all(Option::is_none) {
            return None;
        }
        let default = Watch::default();
        let expected_min = self.expected_min.unwrap_or(0);
        Some(Watch {
            warning: self.warning.unwrap_or(default.warning),
            leak: self.leak.unwrap_or(default.leak),
            critical: self.critical.unwrap_or(default.critical),
            expected_min,
            expected_max: self.expected_max.unwrap_or(u32::MAX),
            baseline: self.baseline.unwrap_or(expected_min),
            hold_up: self.hold_up.unwrap_or(default.hold_up),
            hold_down: self.hold_down.unwrap_or(default.hold_down),
            ..default
        })
    }
}

fn restart_only() -> Vec<Rung> {
    vec![Rung::Restart]
}

pub(super) fn one_minute() -> Duration {
    Duration::from_secs(60)
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    pub dry_run: bool,
    #[serde(deserialize_with = "duration::deserialize")]
    pub cooldown: Duration,
    #[serde(deserialize_with = "duration::deserialize")]
    pub verify_window: Duration,
    #[serde(deserialize_with = "duration::deserialize")]
    pub settle_window: Duration,
    pub settle_growth_per_minute: f64,
    pub min_growth_per_minute: f64,
    pub min_growth_share: f64,
    pub max_failed_restarts: u32,
    #[serde(deserialize_with = "duration::deserialize")]
    pub retry_first: Duration,
    #[serde(deserialize_with = "duration::deserialize")]
    pub retry_max: Duration,
    pub max_action_failures: u32,
    #[serde(deserialize_with = "duration::deserialize")]
    pub latency_limit: Duration,
    #[serde(deserialize_with = "duration::deserialize")]
    pub latency_hold: Duration,
    pub max_error_replies_per_minute: f64,
    pub max_rejected_per_minute: f64,
    #[serde(deserialize_with = "duration::deserialize")]
    pub redis_hold: Duration,
    pub max_daemon_starts: u32,
    #[serde(deserialize_with = "duration::deserialize")]
    pub daemon_start_window: Duration,
    #[serde(deserialize_with = "duration::deserialize")]
    pub manual_clear_after: Duration,
    #[serde(deserialize_with = "duration::deserialize")]
    pub action_timeout: Duration,
    #[serde(deserialize_with = "duration::deserialize")]
    pub client_kill_idle: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            dry_run: false,
            cooldown: Duration::from_secs(300),
            verify_window: Duration::from_secs(10),
            settle_window: Duration::from_secs(300),
            settle_growth_per_minute: 1.0,
            min_growth_per_minute: 0.5,
            min_growth_share: 0.25,
            max_failed_restarts: 3,
            retry_first: Duration::from_secs(5),
            retry_max: Duration::from_secs(60),
            max_action_failures: 10,
            latency_limit: Duration::from_millis(10),
            latency_hold: Duration::from_secs(60),
            max_error_replies_per_minute: 600.0,
            max_rejected_per_minute: 0.0,
            redis_hold: Duration::from_secs(60),
            max_daemon_starts: 5,
            daemon_start_window: Duration::from_secs(600),
            manual_clear_after: Duration::from_secs(1800),
            action_timeout: Duration::from_secs(120),
            client_kill_idle: Duration::from_secs(60),
        }
    }
}

/// From when on something is called by a verdict's name.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Verdicts {
    #[serde(deserialize_with = "duration::deserialize")]
    pub window: Duration,
    #[serde(deserialize_with = "duration::deserialize")]
    pub old_after: Duration,
    pub min_growth_per_minute: f64,
    pub min_forsaken: u32,
    pub max_closed_share: f64,
    #[serde(deserialize_with = "duration::deserialize")]
    pub held_after: Duration,
    #[serde(deserialize_with = "duration::deserialize")]
    pub never_used_after: Duration,
    #[serde(deserialize_with = "duration::deserialize")]
    pub idle_after: Duration,
    pub churn_per_minute: f64,
    #[serde(deserialize_with = "duration::deserialize")]
    pub recovered_for: Duration,
}

impl Default for Verdicts {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(300),
            old_after: Duration::from_secs(300),
            min_growth_per_minute: 0.2,
            min_forsaken: 3,
            max_closed_share: 0.1,
            held_after: Duration::from_secs(60),
            never_used_after: Duration::from_secs(60),
            idle_after: Duration::from_secs(600),
            churn_per_minute: 20.0,
            recovered_for: Duration::from_secs(900),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Check {
    pub services: Vec<String>,
    #[serde(deserialize_with = "duration::deserialize")]
    pub journal_window: Duration,
    pub max_clients_share: f64,
}

impl Default for Check {
    fn default() -> Self {
        Self {
            services: Vec::new(),
            journal_window: Duration::from_secs(3600),
            max_clients_share: 0.9,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Daemon {
    pub socket: PathBuf,
    pub group: String,
    pub state_dir: PathBuf,
    pub evidence_dir: PathBuf,
    pub evidence_files: u32,
    #[serde(deserialize_with = "duration::deserialize")]
    pub heartbeat: Duration,
    #[serde(deserialize_with = "duration::deserialize")]
    pub reconcile: Duration,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            socket: "/run/connleak/connleak.sock".into(),
            group: "connleak".to_owned(),
            state_dir: "/var/lib/connleak".into(),
            evidence_dir: "/var/lib/connleak/evidence".into(),
            evidence_files: 500,
            heartbeat: Duration::from_secs(60),
            reconcile: Duration::from_secs(60),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    pub max_sockets: u32,
    #[serde(deserialize_with = "size::deserialize")]
    pub ring_bytes: u64,
    #[serde(deserialize_with = "size::deserialize")]
    pub stack_bytes: u64,
    pub stacks_per_second: u32,
    /// Of one CPU, for naming stacks, and as much again for finding interpreters.
    pub background_cpu_percent: u32,
    /// JVMs that cannot be read are asked, with `jcmd`, to write down what they have compiled.
    pub java_perfmap: bool,
    #[serde(deserialize_with = "size::deserialize")]
    pub symbol_cache_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_sockets: 262_144,
            ring_bytes: 4 << 20,
            stack_bytes: 32 << 10,
            stacks_per_second: 200,
            background_cpu_percent: 50,
            java_perfmap: false,
            symbol_cache_bytes: 256 << 20,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    pub enabled: bool,
    pub file: PathBuf,
    #[serde(deserialize_with = "duration::deserialize")]
    pub interval: Duration,
    #[serde(deserialize_with = "duration::deserialize")]
    pub retention: Duration,
    #[serde(deserialize_with = "size::deserialize")]
    pub max_bytes: u64,
}

impl Default for History {
    fn default() -> Self {
        Self {
            enabled: true,
            file: "/var/lib/connleak/history.db".into(),
            interval: Duration::from_secs(60),
            retention: Duration::from_secs(7 * 86_400),
            max_bytes: 256 << 20,
        }
    }
}
