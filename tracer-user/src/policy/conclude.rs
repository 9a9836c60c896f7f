//! The concluding half of the machine: from an action's outcome to whether it helped.

use super::decision::{Decision, ManualCause, Subject, Verdict};
use super::level::{Level, LevelTracker};
use super::machine::Machine;
use super::observation::Observation;
use super::rules::Rung;
use super::state::Pending;
use super::verify::{Counts, Verification};

impl Machine {
    pub(super) fn expire_pending(&mut self) {
        let (now, timeout) = (self.now(), self.rules.action_timeout);
        let expired = |pending: &mut Pending| now.since(pending.decided_at) >= timeout;
        if let Some(pending) = self.state.pending.take_if(expired) {
            self.begin_verification(pending);
        }
    }

    pub(super) fn begin_verification(&mut self, pending: Pending) {
        self.dirty = true;
        self.state.verification = Some(Verification {
            id: pending.id,
            unit: pending.unit,
            rung: pending.rung,
            subject: pending.subject,
            unit_count_before: pending.unit_count_before,
            done_at: self.now(),
            fell: false,
            slope: Default::default(),
        });
    }

    pub(super) fn retry_later(
        &mut self,
        pending: Pending,
        error: String,
        decisions: &mut Vec<Decision>,
    ) {
        match pending.rung {
            Rung::ClientKill => self.state.last_client_kill = pending.previous,
            Rung::Restart | Rung::Exec => self.state.last_interruption = pending.previous,
            Rung::None => {}
        }
        if self.climb_past(&pending) {
            let Pending { id, unit, rung, .. } = pending;
            let verdict = Verdict::NotBegun { error };
            decisions.push(Decision::Verified {
                id,
                unit,
                rung,
                verdict,
            });
            return;
        }
        let attempt = self.state.action_failures.saturating_add(1);
        self.state.action_failures = attempt;
        let doublings = attempt.saturating_sub(1).min(31);
        let wait = self.rules.retry_first.saturating_mul(1 << doublings);
        let at = self.now().after(wait.min(self.rules.retry_max));
        self.state.retry_at = Some(at);
        let Pending { id, unit, rung, .. } = pending;
        let verdict = Verdict::NotBegun {
            error: error.clone(),
        };
        decisions.push(Decision::Verified {
            id,
            unit: unit.clone(),
            rung,
            verdict,
        });
        if attempt >= self.rules.max_action_failures {
            let cause = ManualCause::ActionsFail {
                unit,
                attempts: attempt,
                error,
            };
            self.enter_manual(cause, decisions);
        } else {
            decisions.push(Decision::Retry {
                unit,
                at,
                attempt,
                error,
            });
        }
    }

    pub(super) fn counts(&self, subject: &Subject, unit: &str, seen: &Observation<'_>) -> Counts {
        let tracker = self.trackers.get(subject);
        let of_unit = seen.openers.iter().filter(|it| {
            it.unit.as_deref() == Some(unit)
                && !matches!(subject, Subject::Port(port) if *port != it.port)
        });
        Counts {
            count: tracker.map_or(0, LevelTracker::count),
            unit_count: of_unit.fold(0, |sum, it| sum.saturating_add(it.outstanding)),
            raw: tracker.map_or(Level::Healthy, LevelTracker::raw),
        }
    }

    pub(super) fn verify(&mut self, seen: &Observation<'_>, decisions: &mut Vec<Decision>) {
        let Some(mut verification) = self.state.verification.take() else {
            return;
        };
        let fell_before = verification.fell;
        let counts = self.counts(&verification.subject, &verification.unit, seen);
        match verification.observe(self.now(), counts, &self.rules) {
            Some(verdict) => {
                let Verification { id, unit, rung, .. } = verification;
                self.conclude(id, &unit, rung, verdict, decisions);
            }
            None => {
                self.dirty |= verification.fell != fell_before;
                self.state.verification = Some(verification);
            }
        }
    }

    pub(super) fn conclude(
        &mut self,
        id: u64,
        unit: &str,
        rung: Rung,
        verdict: Verdict,
        decisions: &mut Vec<Decision>,
    ) {
        self.dirty = true;
        let (helped, climbs) = (verdict.helped(), verdict.climbs());
        let unit = unit.to_owned();
        decisions.push(Decision::Verified {
            id,
            unit: unit.clone(),
            rung,
            verdict,
        });
        if helped {
            self.state.climbed.remove(&unit);
            self.state.failed_restarts = 0;
            return;
        }
        if climbs {
            *self.state.climbed.entry(unit.clone()).or_default() += 1;
        }
        if !rung.interrupts() {
            return;
        }
        self.state.failed_restarts = self.state.failed_restarts.saturating_add(1);
        let restarts = self.state.failed_restarts;
        if restarts >= self.rules.max_failed_restarts {
            self.enter_manual(
                ManualCause::GrowsDespiteRestarts { unit, restarts },
                decisions,
            );
        }
    }
}
