//! The rules are everything the policy was told: what is watched, what is allowed, how long it waits.

use std::collections::BTreeMap;
use std::time::Duration;

use super::hold::HoldTimes;
use super::level::{Expected, LevelRule, Thresholds};
use crate::config::{Config, Watch};

pub use crate::config::Rung;

/// A unit that the configuration allows to be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitRule {
    /// A unit with levels of its own is judged by its own count too.
    pub levels: Option<LevelRule>,
    pub rungs: Vec<Rung>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    pub ports: BTreeMap<u16, LevelRule>,
    pub units: BTreeMap<String, UnitRule>,
    /// Log what would be done, do nothing.
    pub dry_run: bool,
    /// Between two interrupting actions, whatever their units.
    pub cooldown: Duration,
    /// From a restart to the count that must have fallen.
    pub verify_window: Duration,
    /// From there on, how long it must not grow again.
    pub settle_window: Duration,
    /// Growth above this, above HEALTHY, after a restart means that it did not help.
    pub settle_growth_per_minute: f64,
    /// A unit grows when it gains more than this a minute...
    pub min_growth_per_minute: f64,
    /// ...and makes up at least this share of all growth.
    pub min_growth_share: f64,
    /// So many restarts that did not help, one after the other, end in MANUAL.
    pub max_failed_restarts: u32,
    /// An action that could not be begun is tried again after this, doubled each time...
    pub retry_first: Duration,
    /// ...up to this...
    pub retry_max: Duration,
    /// ...until so many attempts have failed.
    pub max_action_failures: u32,
    /// An action without an outcome for this long counts as done, outcome unknown.
    pub action_timeout: Duration,
    pub latency_limit: Duration,
    pub latency_hold: Duration,
    pub redis_hold: Duration,
    pub max_error_replies_per_minute: f64,
    pub max_rejected_per_minute: f64,
    /// More starts of the daemon than this within `daemon_start_window` end in MANUAL.
    pub max_daemon_starts: u32,
    pub daemon_start_window: Duration,
    /// Healthy for this long, MANUAL ends by itself.
    pub manual_clear_after: Duration,
}

impl From<&Watch> for LevelRule {
    fn from(watch: &Watch) -> Self {
        Self {
            thresholds: Thresholds {
                warning: watch.warning,
                leak: watch.leak,
                critical: watch.critical,
            },
            expected: (watch.expected_min > 0).then_some(Expected {
                min: watch.expected_min,
                max: watch.expected_max,
                baseline: watch.baseline,
            }),
            hold: HoldTimes {
                up: watch.hold_up,
                down: watch.hold_down,
            },
        }
    }
}

impl From<&Config> for Rules {
    fn from(config: &Config) -> Self {
        let policy = &config.policy;
        let units = config.unit.iter().map(|unit| {
            let rule = UnitRule {
                levels: unit.own_levels().as_ref().map(LevelRule::from),
                rungs: unit.actions.clone(),
            };
            (unit.name.clone(), rule)
        });
        Self {
            ports: config
                .watch
                .0
                .iter()
                .map(|watch| (watch.port, LevelRule::from(watch)))
                .collect(),
            units: units.collect(),
            dry_run: policy.dry_run,
            cooldown: policy.cooldown,
            verify_window: policy.verify_window,
            settle_window: policy.settle_window,
            settle_growth_per_minute: policy.settle_growth_per_minute,
            min_growth_per_minute: policy.min_growth_per_minute,
            min_growth_share: policy.min_growth_share,
            max_failed_restarts: policy.max_failed_restarts,
            retry_first: policy.retry_first,
            retry_max: policy.retry_max,
            max_action_failures: policy.max_action_failures,
            action_timeout: policy.action_timeout,
            latency_limit: policy.latency_limit,
            latency_hold: policy.latency_hold,
            redis_hold: policy.redis_hold,
            max_error_replies_per_minute: policy.max_error_replies_per_minute,
            max_rejected_per_minute: policy.max_rejected_per_minute,
            max_daemon_starts: policy.max_daemon_starts,
            daemon_start_window: policy.daemon_start_window,
            manual_clear_after: policy.manual_clear_after,
        }
    }
}
