//! The world around a machine under test: one clock, some units, a Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::decision::{Act, Blocked, Decision, ManualCause, Outcome, Verdict};
use super::hold::HoldTimes;
use super::level::{Expected, LevelRule, Thresholds};
use super::machine::Machine;
use super::observation::{Observation, OpenerCount, PortCount, RedisState, RedisView};
use super::rules::{Rules, Rung, UnitRule};
use super::state::{BootTime, State};
use super::timestamp::Timestamp;

pub(super) fn rules(units: &[(&str, &[Rung])]) -> Rules {
    let levels = LevelRule {
        thresholds: Thresholds::default(),
        expected: Some(Expected::default()),
        hold: HoldTimes {
            up: Duration::from_secs(10),
            down: Duration::from_secs(30),
        },
    };
    let unit = |(name, rungs): &(&str, &[Rung])| {
        let rule = UnitRule {
            levels: None,
            rungs: rungs.to_vec(),
        };
        ((*name).to_owned(), rule)
    };
    Rules {
        ports: BTreeMap::from([(6379, levels)]),
        units: units.iter().map(unit).collect(),
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
        action_timeout: Duration::from_secs(120),
        latency_limit: Duration::from_millis(10),
        latency_hold: Duration::from_secs(60),
        redis_hold: Duration::from_secs(60),
        max_error_replies_per_minute: 600.0,
        max_rejected_per_minute: 0.0,
        max_daemon_starts: 5,
        daemon_start_window: Duration::from_secs(600),
        manual_clear_after: Duration::from_secs(1800),
    }
}

pub(super) fn boot(id: &str, seconds: u64) -> BootTime {
    BootTime {
        boot_id: id.to_owned(),
        now: Timestamp::from_boottime(Duration::from_secs(seconds)),
    }
}

/// The machine with a world around it that has one clock and some units.
pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) now_s: u64,
    openers: Vec<OpenerCount>,
    pub(super) redis: RedisView,
    said: Vec<Decision>,
}

impl World {
    pub(super) fn new(rules: Rules) -> Self {
        let (machine, said) = Machine::start(rules, None, &boot("one", 0));
        let redis = RedisView {
            state: RedisState::Up,
            ..RedisView::default()
        };
        Self {
            machine,
            now_s: 0,
            openers: Vec::new(),
            redis,
            said,
        }
    }

    pub(super) fn set(&mut self, unit: Option<&str>, outstanding: u32, growth_per_minute: f64) {
        self.openers.retain(|opener| opener.unit.as_deref() != unit);
        self.openers.push(OpenerCount {
            pid: 100 + u32::try_from(self.openers.len()).expect("few openers"),
            unit: unit.map(str::to_owned),
            port: 6379,
            outstanding,
            growth_per_minute,
        });
    }

    pub(super) fn run(&mut self, seconds: u64) -> Vec<Decision> {
        let mut said = std::mem::take(&mut self.said);
        let listeners = BTreeSet::from(["redis.service".to_owned()]);
        for _ in 0..seconds {
            self.now_s += 1;
            let count = self.openers.iter().map(|opener| opener.outstanding).sum();
            let ports = [PortCount { port: 6379, count }];
            let seen = Observation {
                ports: &ports,
                openers: &self.openers,
                unattributed_growth_per_minute: 0.0,
                listeners: &listeners,
                redis: self.redis,
            };
            said.extend(self.machine.observe(&seen, self.now()));
        }
        said
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_boottime(Duration::from_secs(self.now_s))
    }

    pub(super) fn finish(&mut self, act: &Act, outcome: Outcome) -> Vec<Decision> {
        let now = self.now();
        self.machine.outcome(act.id, outcome, now)
    }

    pub(super) fn reborn(&mut self, boot: &BootTime) -> Vec<Decision> {
        let text = serde_json::to_string(&self.machine.state()).expect("state is serializable");
        let state: State = serde_json::from_str(&text).expect("state is readable");
        let rules = self.machine.rules().clone();
        let (machine, said) = Machine::start(rules, Some(state), boot);
        self.machine = machine;
        self.now_s = boot.now.since(Timestamp::ZERO).as_secs();
        said
    }
}

pub(super) fn acts(said: &[Decision]) -> Vec<Act> {
    let act = |decision: &Decision| match decision {
        Decision::Act(act) => Some((**act).clone()),
        _ => None,
    };
    said.iter().filter_map(act).collect()
}

pub(super) fn blocked(said: &[Decision]) -> Vec<Blocked> {
    let cause = |decision: &Decision| match decision {
        Decision::Blocked { cause, .. } => Some(cause.clone()),
        _ => None,
    };
    said.iter().filter_map(cause).collect()
}

pub(super) fn manual(said: &[Decision]) -> Option<ManualCause> {
    said.iter().find_map(|decision| match decision {
        Decision::EnterManual { cause } => Some(cause.clone()),
        _ => None,
    })
}

pub(super) fn verdicts(said: &[Decision]) -> Vec<Verdict> {
    let verdict = |decision: &Decision| match decision {
        Decision::Verified { verdict, .. } => Some(verdict.clone()),
        _ => None,
    };
    said.iter().filter_map(verdict).collect()
}
