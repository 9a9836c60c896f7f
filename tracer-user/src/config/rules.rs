//! From the configuration to the rules of the policy.

use super::model::{Config, Unit, Watch};
use crate::policy::hold::HoldTimes;
use crate::policy::level::{Expected, LevelRule, Thresholds};
use crate::policy::rules::{Rules, UnitRule};

impl Watch {
    pub fn levels(&self) -> LevelRule {
        LevelRule {
            thresholds: Thresholds {
                warning: self.warning,
                leak: self.leak,
                critical: self.critical,
            },
            expected: (self.expected_min > 0).then_some(Expected {
                min: self.expected_min,
                max: self.expected_max,
                baseline: self.baseline,
            }),
            hold: HoldTimes {
                up: self.hold_up,
                down: self.hold_down,
            },
        }
    }
}

impl Unit {
    /// Levels of its own, where the configuration gives it any; the rest from the defaults.
    pub fn levels(&self) -> Option<LevelRule> {
        let own = [self.warning, self.leak, self.critical, self.expected_min];
        if own.iter().all(Option::is_none) {
            return None;
        }
        let default = Watch::default();
        let expected_min = self.expected_min.unwrap_or(0);
        Some(
            Watch {
                warning: self.warning.unwrap_or(default.warning),
                leak: self.leak.unwrap_or(default.leak),
                critical: self.critical.unwrap_or(default.critical),
                expected_min,
                expected_max: self.expected_max.unwrap_or(u32::MAX),
                baseline: self.baseline.unwrap_or(expected_min),
                hold_up: self.hold_up.unwrap_or(default.hold_up),
                hold_down: self.hold_down.unwrap_or(default.hold_down),
                ..default
            }
            .levels(),
        )
    }
}

impl Config {
    pub fn rules(&self) -> Rules {
        let policy = &self.policy;
        let units = self.unit.iter().map(|unit| {
            let rule = UnitRule {
                levels: unit.levels(),
                rungs: unit.actions.clone(),
            };
            (unit.name.clone(), rule)
        });
        Rules {
            ports: self
                .watch
                .0
                .iter()
                .map(|watch| (watch.port, watch.levels()))
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
