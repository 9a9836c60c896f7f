//! Properties that hold for every sequence of inputs, kills and reboots.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::decision::{Act, Decision, Outcome};
use super::level::{Level, LevelRule};
use super::machine::Machine;
use super::observation::{Observation, OpenerCount, PortCount, RedisState, RedisView};
use super::rules::{Rules, Rung};
use super::state::State;
use super::timestamp::Timestamp;
use super::world::{boot, rules};

const UNITS: [&str; 5] = [
    "a.service",
    "b.service",
    "observed.service",
    "redis.service",
    "stranger.service",
];

#[derive(Clone, Debug)]
enum Input {
    Seen {
        openers: Vec<(usize, u32, i32)>,
        outside: u32,
        redis: u8,
        latency_ms: u64,
    },
    Outcome(u8),
    Ack,
    Kill,
    Reboot {
        off_s: u64,
    },
}

fn input() -> impl Strategy<Value = Input> {
    let openers = prop::collection::vec((0usize..6, 0u32..160, -20i32..60), 0..4);
    let seen = (
        openers,
        prop_oneof![4 => Just(0u32), 1 => 0u32..40],
        0u8..12,
        0u64..12,
    );
    prop_oneof![
        20 => seen.prop_map(|(openers, outside, redis, latency_ms)| Input::Seen {
            openers, outside, redis, latency_ms
        }),
        6 => (0u8..6).prop_map(Input::Outcome),
        1 => Just(Input::Ack),
        1 => Just(Input::Kill),
        1 => (0u64..4000).prop_map(|off_s| Input::Reboot { off_s }),
    ]
}

fn allowed() -> Rules {
    let mut told = rules(&[
        ("a.service", &[Rung::ClientKill, Rung::Restart, Rung::Exec]),
        ("b.service", &[Rung::Restart]),
        ("observed.service", &[Rung::None]),
        ("redis.service", &[Rung::Restart]),
    ]);
    let own: LevelRule = told.ports[&6379];
    if let Some(unit) = told.units.get_mut("b.service") {
        unit.levels = Some(own);
    }
    told.max_daemon_starts = 12;
    told
}

/// The world keeps true time and its own books; the machine only sees the boot clock.
struct World {
    machine: Machine,
    stored: String,
    true_s: u64,
    booted_s: u64,
    boots: u32,
    critical_for: Option<u64>,
    openers: Vec<OpenerCount>,
    pending: Option<(Act, [Option<u64>; 2])>,
    /// True times of the last client-kill and the last interruption.
    last: [Option<u64>; 2],
    manual: bool,
}

impl World {
    fn new() -> Self {
        let (machine, _) = Machine::start(allowed(), None, &boot("0", 100));
        let stored = serde_json::to_string(&machine.state()).expect("serializable");
        Self {
            machine,
            stored,
            true_s: 1_000_000,
            booted_s: 999_900,
            boots: 0,
            critical_for: None,
            openers: Vec::new(),
            pending: None,
            last: [None, None],
            manual: false,
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_boottime(Duration::from_secs(self.true_s - self.booted_s))
    }

    fn take(&mut self, input: Input) -> Result<(), TestCaseError> {
        let said = match input {
            Input::Seen {
                openers,
                outside,
                redis,
                latency_ms,
            } => self.see(&openers, outside, redis, latency_ms),
            Input::Outcome(kind) => self.finish(kind),
            Input::Ack => self.machine.ack(self.now()),
            Input::Kill => self.kill()?,
            Input::Reboot { off_s } => {
                self.true_s += off_s;
                self.booted_s = self.true_s;
                self.boots += 1;
                self.kill()?
            }
        };
        for decision in said {
            self.check(decision)?;
        }
        prop_assert_eq!(self.machine.manual().is_some(), self.manual);
        // As the daemon does: stored whenever the machine asks, and not otherwise.
        if self.machine.take_dirty() {
            self.stored = serde_json::to_string(&self.machine.state()).expect("serializable");
        }
        Ok(())
    }

    fn see(
        &mut self,
        openers: &[(usize, u32, i32)],
        outside: u32,
        redis: u8,
        latency_ms: u64,
    ) -> Vec<Decision> {
        self.openers = openers
            .iter()
            .enumerate()
            .map(|(index, (unit, outstanding, growth))| OpenerCount {
                pid: u32::try_from(index).expect("few openers"),
                unit: UNITS.get(*unit).map(|name| (*name).to_owned()),
                port: 6379,
                outstanding: *outstanding,
                growth_per_minute: f64::from(*growth),
            })
            .collect();
        let count = self.openers.iter().map(|opener| opener.outstanding).sum();
        if count >= 100 {
            self.critical_for.get_or_insert(self.true_s);
        }
        let listeners = BTreeSet::from(["redis.service".to_owned()]);
        let seen = Observation {
            ports: &[PortCount { port: 6379, count }],
            openers: &self.openers,
            unattributed_growth_per_minute: f64::from(outside),
            listeners: &listeners,
            redis: RedisView {
                state: match redis {
                    0 => RedisState::Down,
                    1 => RedisState::Denied,
                    _ => RedisState::Up,
                },
                rejected_per_minute: if redis == 2 { 1.0 } else { 0.0 },
                error_replies_per_minute: 0.0,
                latency: Some(Duration::from_millis(latency_ms)),
            },
        };
        self.machine.observe(&seen, self.now())
    }

    fn finish(&mut self, kind: u8) -> Vec<Decision> {
        let Some((act, before)) = self.pending.take() else {
            return self.machine.outcome(u64::MAX, Outcome::Done, self.now());
        };
        let error = "refused".to_owned();
        let expired = self.machine.state().pending.is_none();
        let outcome = match kind {
            0 => Outcome::Down { error },
            1 => Outcome::Uncertain { error },
            2 => {
                if !expired {
                    self.last = before;
                }
                Outcome::NotBegun { error }
            }
            _ => Outcome::Done,
        };
        self.machine.outcome(act.id, outcome, self.now())
    }

    fn kill(&mut self) -> Result<Vec<Decision>, TestCaseError> {
        let state: State = serde_json::from_str(&self.stored).expect("readable");
        let mut at = boot(&self.boots.to_string(), 0);
        at.now = self.now();
        let (machine, said) = Machine::start(allowed(), Some(state), &at);
        self.machine = machine;
        self.pending = None;
        self.critical_for = None;
        Ok(said)
    }

    fn check(&mut self, decision: Decision) -> Result<(), TestCaseError> {
        match decision {
            Decision::EnterManual { .. } => self.manual = true,
            Decision::LeaveManual { .. } => self.manual = false,
            Decision::Act(act) => self.check_act(*act)?,
            _ => {}
        }
        Ok(())
    }

    fn check_act(&mut self, act: Act) -> Result<(), TestCaseError> {
        prop_assert!(!self.manual, "acts after manual");
        prop_assert!(
            ["a.service", "b.service"].contains(&act.unit.as_str()),
            "{act:?}"
        );
        prop_assert!(act.rung != Rung::None);
        prop_assert!(
            act.unit == "a.service" || act.rung == Rung::Restart,
            "{act:?}"
        );
        let mine = self
            .openers
            .iter()
            .filter(|it| it.unit.as_ref() == Some(&act.unit));
        let growth: f64 = mine.map(|it| it.growth_per_minute).sum();
        prop_assert!(growth > 0.5, "restarts what does not grow: {act:?}");
        prop_assert!(act.facts.level == Level::Critical && act.facts.count >= 100);
        let critical_s = self.critical_for.map_or(0, |since_s| self.true_s - since_s);
        prop_assert!(critical_s >= 10, "CRITICAL was not held: {critical_s} s");
        let kind = usize::from(act.rung.interrupts());
        if let Some(last_s) = self.last[kind] {
            prop_assert!(self.true_s - last_s >= 300, "within the cooldown: {act:?}");
        }
        if let Some((_, _)) = &self.pending {
            let timeout_s = self
                .last
                .iter()
                .flatten()
                .max()
                .map_or(0, |at| self.true_s - at);
            prop_assert!(timeout_s >= 120, "two actions at once");
        }
        let before = self.last;
        self.last[kind] = Some(self.true_s);
        self.pending = Some((act, before));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_inputs_breaks_the_policy(
        inputs in prop::collection::vec((0u64..40, input()), 1..250),
    ) {
        let mut world = World::new();
        for (wait_s, input) in inputs {
            world.true_s += wait_s;
            world.take(input)?;
        }
    }

    /// A steady leaker makes every path of actions, failures and kills likely.
    #[test]
    fn a_steady_leaker_does_not_break_the_policy(
        inputs in prop::collection::vec((0u64..200, prop_oneof![
            12 => (90u32..200, 0usize..2).prop_map(|(count, unit)| Input::Seen {
                openers: vec![(unit, count, 30)], outside: 0, redis: 9, latency_ms: 1,
            }),
            4 => (0u8..6).prop_map(Input::Outcome),
            1 => Just(Input::Ack),
            1 => Just(Input::Kill),
            1 => (0u64..400).prop_map(|off_s| Input::Reboot { off_s }),
        ]), 1..300),
    ) {
        let mut world = World::new();
        for (wait_s, input) in inputs {
            world.true_s += wait_s;
            world.take(input)?;
        }
    }
}
