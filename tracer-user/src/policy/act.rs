//! The acting half of the machine: from a CRITICAL count to one action, or to why there is none.

use super::choose::{Shares, choose};
use super::decision::{Act, Blocked, Decision, Facts, Subject, Verdict};
use super::level::{Level, LevelTracker};
use super::machine::Machine;
use super::observation::{Observation, RedisState};
use super::rules::Rung;
use super::state::Pending;
use super::verify::Verification;

/// Remembered as said, of each subject.
const MAX_CAUSES: usize = 32;

impl Machine {
    pub(super) fn consider_action(
        &mut self,
        seen: &Observation<'_>,
        decisions: &mut Vec<Decision>,
    ) {
        let critical = |tracker: &LevelTracker| {
            tracker.held() == Level::Critical && tracker.raw() == Level::Critical
        };
        let subjects: Vec<Subject> = self
            .trackers
            .iter()
            .filter_map(|(subject, tracker)| critical(tracker).then_some(subject.clone()))
            .collect();
        self.blocked.retain(|subject, _| subjects.contains(subject));
        // A unit's own level points closer than its port's.
        for subject in subjects.into_iter().rev() {
            if self.state.manual.is_some() {
                return;
            }
            match self.decide(&subject, seen, decisions) {
                Ok(act) => {
                    self.blocked.remove(&subject);
                    decisions.push(Decision::Act(Box::new(act)));
                }
                Err(cause) => {
                    if self.is_new(&subject, &cause) && self.state.manual.is_none() {
                        decisions.push(Decision::Blocked { subject, cause });
                    }
                }
            }
        }
    }

    /// Two causes in turn, observation after observation, are said once each.
    fn is_new(&mut self, subject: &Subject, cause: &Blocked) -> bool {
        let said = self.blocked.entry(subject.clone()).or_default();
        let known = said.iter().position(|earlier| earlier == cause);
        if let Some(index) = known {
            let again = said.remove(index);
            said.push(again);
        } else {
            if said.len() == MAX_CAUSES {
                said.remove(0);
            }
            said.push(cause.clone());
        }
        known.is_none()
    }

    /// Whether the gentle rung that could not be begun gives way to the next one at once.
    pub(super) fn climb_past(&mut self, pending: &Pending) -> bool {
        let rungs = self
            .rules
            .units
            .get(&pending.unit)
            .map_or(&[][..], |rule| &rule.rungs);
        if pending.rung.interrupts() || rungs.last().is_none_or(|top| *top == pending.rung) {
            return false;
        }
        *self.state.climbed.entry(pending.unit.clone()).or_default() += 1;
        true
    }

    fn decide(
        &mut self,
        subject: &Subject,
        seen: &Observation<'_>,
        decisions: &mut Vec<Decision>,
    ) -> Result<Act, Blocked> {
        if let RedisState::Down | RedisState::Hung = seen.redis.state {
            return Err(Blocked::Redis {
                state: seen.redis.state,
            });
        }
        let shares = Shares::of(subject, seen);
        let unit = choose(&shares, seen, &self.rules)?;
        if let Some(pending) = &self.state.pending {
            return Err(Blocked::ActionRunning {
                unit: pending.unit.clone(),
            });
        }
        self.end_verification(&unit, seen, decisions)?;
        if let Some(at) = self.state.retry_at.filter(|at| *at > self.now()) {
            return Err(Blocked::Retry { unit, at });
        }
        let rung = self.rung(&unit);
        if rung == Rung::None {
            return Err(Blocked::ObserveOnly { unit });
        }
        let last = if rung.interrupts() {
            self.state.last_interruption
        } else {
            self.state.last_client_kill
        };
        if let Some(last) = last.filter(|last| self.now().since(*last) < self.rules.cooldown) {
            return Err(Blocked::Cooldown {
                unit,
                until: last.after(self.rules.cooldown),
            });
        }
        Ok(self.act(rung, unit, subject, shares))
    }

    /// CRITICAL again while the last action settles: it did not help, whoever grows now. Were it
    /// forgiven when another unit grows, two leaking units would be restarted in turn for ever.
    fn end_verification(
        &mut self,
        unit: &str,
        seen: &Observation<'_>,
        decisions: &mut Vec<Decision>,
    ) -> Result<(), Blocked> {
        let Some(verification) = self.state.verification.take() else {
            return Ok(());
        };
        if verification.is_open() {
            let unit = verification.unit.clone();
            self.state.verification = Some(verification);
            return Err(Blocked::Verifying { unit });
        }
        let counts = self.counts(&verification.subject, &verification.unit, seen);
        let verdict = if verification.unit == unit {
            verification.grows_again(counts)
        } else {
            Verdict::Overtaken {
                by: unit.to_owned(),
                count: counts.count,
            }
        };
        let Verification { id, unit, rung, .. } = verification;
        self.conclude(id, &unit, rung, verdict, decisions);
        match &self.state.manual {
            Some(_) => Err(Blocked::Verifying { unit }),
            None => Ok(()),
        }
    }

    fn rung(&self, unit: &str) -> Rung {
        let climbed = self.state.climbed.get(unit).copied().unwrap_or(0);
        let rungs = self
            .rules
            .units
            .get(unit)
            .map_or(&[][..], |rule| &rule.rungs);
        let top = rungs.len().saturating_sub(1);
        rungs.get(climbed.min(top)).copied().unwrap_or(Rung::None)
    }

    fn act(&mut self, rung: Rung, unit: String, subject: &Subject, shares: Shares) -> Act {
        let facts = self.facts(subject, shares);
        let share = facts.units.get(&unit).cloned().unwrap_or_default();
        let (id, now) = (self.state.next_id, self.now());
        let last = match rung {
            Rung::ClientKill => &mut self.state.last_client_kill,
            Rung::None | Rung::Restart | Rung::Exec => &mut self.state.last_interruption,
        };
        let previous = last.replace(now);
        self.state.next_id = id.saturating_add(1);
        self.state.retry_at = None;
        self.dirty = true;
        // A dry run keeps the cooldown's rhythm and leaves nothing to verify.
        if !self.rules.dry_run {
            self.state.pending = Some(Pending {
                id,
                unit: unit.clone(),
                rung,
                subject: subject.clone(),
                unit_count_before: share.outstanding,
                decided_at: now,
                previous,
            });
        }
        Act {
            id,
            rung,
            dry_run: self.rules.dry_run,
            reason: format!(
                "{subject} is {} with {} connections; {unit} holds {} and grows by {:.1} a minute",
                facts.level, facts.count, share.outstanding, share.growth_per_minute,
            ),
            unit,
            facts,
        }
    }

    fn facts(&self, subject: &Subject, shares: Shares) -> Facts {
        let tracker = self.trackers.get(subject);
        let rule = tracker.map(LevelTracker::rule);
        let since_last = self
            .state
            .last_interruption
            .map(|last| self.now().since(last));
        Facts {
            subject: subject.clone(),
            count: tracker.map_or(0, LevelTracker::count),
            level: tracker.map_or(Level::Healthy, LevelTracker::held),
            thresholds: rule.map(|rule| rule.thresholds).unwrap_or_default(),
            hold_s: rule.map_or(0.0, |rule| rule.hold.up.as_secs_f64()),
            units: shares.units,
            growth_outside_units_per_minute: shares.outside_units_per_minute,
            failed_restarts: self.state.failed_restarts,
            since_last_restart_s: since_last.map(|passed| passed.as_secs_f64()),
        }
    }
}
