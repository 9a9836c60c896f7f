//! The machine decides: observations, outcomes and acks go in, decisions come out; no clock, no IO.
//!
//! The caller stores [`Machine::state`] before it carries out an [`Act`](super::decision::Act), and whenever
//! [`Machine::take_dirty`] says so: that is what keeps the cooldown across kill -9 and reboot.

use std::collections::BTreeMap;
use std::time::Duration;

use super::decision::{Blocked, Decision, ManualCause, Outcome, ResumedBy, Subject, Verdict};
use super::hold::{Hold, HoldTimes};
use super::level::LevelTracker;
use super::observation::Observation;
use super::rules::Rules;
use super::state::{BootTime, Manual, State};
use super::timestamp::Timestamp;

#[derive(Clone, Debug)]
pub struct Machine {
    pub(super) rules: Rules,
    pub(super) state: State,
    pub(super) trackers: BTreeMap<Subject, LevelTracker>,
    pub(super) latency_high: Hold,
    pub(super) redis_errors: Hold,
    pub(super) healthy_since: Option<Timestamp>,
    /// What was said of each subject since it became CRITICAL; the last is the present cause.
    pub(super) blocked: BTreeMap<Subject, Vec<Blocked>>,
    now: Timestamp,
    pub(super) dirty: bool,
}

impl Machine {
    /// Begins a run of the daemon from what the last one stored.
    pub fn start(rules: Rules, stored: Option<State>, boot: &BootTime) -> (Self, Vec<Decision>) {
        let mut state = stored.unwrap_or_else(|| State::first(boot));
        let rebooted = state.rebase(boot);
        let mut machine = Self {
            trackers: BTreeMap::new(),
            latency_high: Hold::default(),
            redis_errors: Hold::default(),
            healthy_since: None,
            blocked: BTreeMap::new(),
            now: boot.now,
            dirty: true,
            rules,
            state,
        };
        machine.follow_rules();
        let mut decisions = Vec::new();
        machine.resume_action(rebooted, &mut decisions);
        machine.count_start(&mut decisions);
        (machine, decisions)
    }

    pub fn state(&self) -> State {
        let mut state = self.state.clone();
        state.saved_at = self.now;
        state
    }

    /// Whether the state must be stored again; asked once.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    pub fn manual(&self) -> Option<&Manual> {
        self.state.manual.as_ref()
    }

    pub fn levels(&self) -> impl Iterator<Item = (&Subject, &LevelTracker)> {
        self.trackers.iter()
    }

    /// Whether an action is running or being verified.
    pub fn is_verifying(&self) -> bool {
        self.state.pending.is_some() || self.state.verification.is_some()
    }

    /// Why nothing is done about a CRITICAL subject now.
    pub fn blocked(&self) -> impl Iterator<Item = (&Subject, &Blocked)> {
        self.blocked
            .iter()
            .filter_map(|(subject, causes)| Some((subject, causes.last()?)))
    }

    /// Takes over a reloaded configuration; levels that are held stay held.
    pub fn reload(&mut self, rules: Rules) {
        self.rules = rules;
        self.follow_rules();
        self.blocked.clear();
    }

    /// A start that ended on purpose is none of the repeated ones.
    pub fn stopped_on_purpose(&mut self) {
        self.state.starts.pop();
        self.dirty = true;
    }

    pub fn observe(&mut self, seen: &Observation<'_>, now: Timestamp) -> Vec<Decision> {
        self.advance(now);
        let mut decisions = Vec::new();
        self.judge_levels(seen, &mut decisions);
        self.judge_redis(seen, &mut decisions);
        self.expire_pending();
        self.verify(seen, &mut decisions);
        self.leave_manual_when_healthy(&mut decisions);
        self.consider_action(seen, &mut decisions);
        decisions
    }

    pub fn outcome(&mut self, id: u64, outcome: Outcome, now: Timestamp) -> Vec<Decision> {
        self.advance(now);
        let mut decisions = Vec::new();
        // An outcome later than its timeout finds the action in verification already.
        let Some(pending) = self.state.pending.take_if(|pending| pending.id == id) else {
            return decisions;
        };
        self.dirty = true;
        match outcome {
            Outcome::Done | Outcome::Uncertain { .. } => {
                self.state.action_failures = 0;
                self.state.retry_at = None;
                self.begin_verification(pending);
            }
            Outcome::Down { error } => {
                self.state.action_failures = 0;
                self.state.retry_at = None;
                let verdict = Verdict::Down { error };
                self.conclude(
                    pending.id,
                    &pending.unit,
                    pending.rung,
                    verdict,
                    &mut decisions,
                );
            }
            Outcome::NotBegun { error } => self.retry_later(pending, error, &mut decisions),
        }
        decisions
    }

    /// A person has looked: MANUAL ends and every count of failures starts anew. The cooldown stays.
    pub fn ack(&mut self, now: Timestamp) -> Vec<Decision> {
        self.advance(now);
        let mut decisions = Vec::new();
        self.resume(ResumedBy::Ack, &mut decisions);
        decisions
    }

    /// The next moment at which something is decided even if nothing changes.
    pub fn deadline(&self) -> Option<Timestamp> {
        let cooldown = |at: &Option<Timestamp>| at.map(|at| at.after(self.rules.cooldown));
        let pending = self.state.pending.as_ref();
        let verification = self.state.verification.as_ref();
        self.trackers
            .values()
            .filter_map(LevelTracker::deadline)
            .chain(self.latency_high.deadline(self.latency_times()))
            .chain(self.redis_errors.deadline(self.redis_times()))
            .chain(pending.map(|pending| pending.decided_at.after(self.rules.action_timeout)))
            .chain(verification.map(|verification| verification.deadline(&self.rules)))
            .chain(self.state.retry_at)
            .chain(
                self.state
                    .manual
                    .as_ref()
                    .and(self.healthy_since)
                    .map(|since| since.after(self.rules.manual_clear_after)),
            )
            .chain(cooldown(&self.state.last_interruption))
            .chain(cooldown(&self.state.last_client_kill))
            .filter(|at| *at > self.now)
            .min()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// A caller's clock that steps back is not followed.
    fn advance(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    fn follow_rules(&mut self) {
        let ports = self
            .rules
            .ports
            .iter()
            .map(|(port, rule)| (Subject::Port(*port), *rule));
        let units = self.rules.units.iter().filter_map(|(unit, rule)| {
            let levels = rule.levels?;
            Some((Subject::Unit(unit.clone()), levels))
        });
        let mut kept = std::mem::take(&mut self.trackers);
        for (subject, rule) in ports.chain(units) {
            let mut tracker = kept
                .remove(&subject)
                .unwrap_or_else(|| LevelTracker::new(rule));
            tracker.set_rule(rule);
            self.trackers.insert(subject, tracker);
        }
    }

    /// What the last run left unfinished. An action without an outcome may have been carried out.
    fn resume_action(&mut self, rebooted: bool, decisions: &mut Vec<Decision>) {
        if !rebooted {
            if let Some(pending) = self.state.pending.take() {
                self.begin_verification(pending);
            }
            return;
        }
        let pending = self
            .state
            .pending
            .take()
            .map(|it| (it.id, it.unit, it.rung));
        let verification = self
            .state
            .verification
            .take()
            .map(|it| (it.id, it.unit, it.rung));
        for (id, unit, rung) in pending.into_iter().chain(verification) {
            let verdict = Verdict::Rebooted;
            decisions.push(Decision::Verified {
                id,
                unit,
                rung,
                verdict,
            });
        }
    }

    fn count_start(&mut self, decisions: &mut Vec<Decision>) {
        let (now, window) = (self.now, self.rules.daemon_start_window);
        self.state.starts.push(now);
        self.state.starts.retain(|start| now.since(*start) < window);
        let starts = u32::try_from(self.state.starts.len()).unwrap_or(u32::MAX);
        if starts > self.rules.max_daemon_starts {
            self.enter_manual(ManualCause::DaemonRestarts { starts, window }, decisions);
        }
    }

    pub(super) fn enter_manual(&mut self, cause: ManualCause, decisions: &mut Vec<Decision>) {
        if self.state.manual.is_some() {
            return;
        }
        self.dirty = true;
        self.healthy_since = None;
        self.state.manual = Some(Manual {
            cause: cause.clone(),
            since: self.now,
        });
        decisions.push(Decision::EnterManual { cause });
    }

    pub(super) fn resume(&mut self, by: ResumedBy, decisions: &mut Vec<Decision>) {
        self.dirty = true;
        self.state.failed_restarts = 0;
        self.state.action_failures = 0;
        self.state.retry_at = None;
        self.state.climbed.clear();
        self.state.starts.clear();
        self.state.starts.push(self.now);
        self.latency_high = Hold::default();
        self.redis_errors = Hold::default();
        self.blocked.clear();
        if self.state.manual.take().is_some() {
            decisions.push(Decision::LeaveManual { by });
        }
    }

    pub(super) fn latency_times(&self) -> HoldTimes {
        both(self.rules.latency_hold)
    }

    pub(super) fn redis_times(&self) -> HoldTimes {
        both(self.rules.redis_hold)
    }
}

fn both(span: Duration) -> HoldTimes {
    HoldTimes {
        up: span,
        down: span,
    }
}
