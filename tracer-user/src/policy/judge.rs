//! The judging half of the machine: levels, Redis' own health, and when all is well again.

use super::decision::{Decision, ManualCause, ResumedBy, Subject};
use super::level::Level;
use super::machine::Machine;
use super::observation::{Observation, RedisState};

impl Machine {
    pub(super) fn judge_levels(&mut self, seen: &Observation<'_>, decisions: &mut Vec<Decision>) {
        let now = self.now();
        for (subject, tracker) in &mut self.trackers {
            let count = match subject {
                Subject::Port(port) => seen
                    .ports
                    .iter()
                    .find(|it| it.port == *port)
                    .map_or(0, |it| it.count),
                Subject::Unit(unit) => seen
                    .openers
                    .iter()
                    .filter(|it| it.unit.as_ref() == Some(unit))
                    .fold(0u32, |sum, it| sum.saturating_add(it.outstanding)),
            };
            let change = tracker.observe(count, now);
            if let Some((from, to)) = change.level {
                let subject = subject.clone();
                decisions.push(Decision::Level {
                    subject,
                    from,
                    to,
                    count,
                });
            }
            if let Some(missing) = change.missing {
                decisions.push(Decision::Missing {
                    subject: subject.clone(),
                    missing,
                    count,
                    expected_min: tracker.rule().expected.map_or(0, |range| range.min),
                });
            }
        }
    }

    pub(super) fn judge_redis(&mut self, seen: &Observation<'_>, decisions: &mut Vec<Decision>) {
        let (now, redis) = (self.now(), seen.redis);
        // A hung Redis gives no sample; its latency is above every limit all the same.
        let slow = redis.state == RedisState::Hung
            || redis
                .latency
                .is_some_and(|latency| latency > self.rules.latency_limit);
        let times = self.latency_times();
        if self.latency_high.observe(slow, now, times) && slow {
            let cause = ManualCause::Latency {
                limit: self.rules.latency_limit,
                lasted: self.rules.latency_hold,
            };
            self.enter_manual(cause, decisions);
        }
        let errors = redis.error_replies_per_minute > self.rules.max_error_replies_per_minute
            || redis.rejected_per_minute > self.rules.max_rejected_per_minute;
        let times = self.redis_times();
        if self.redis_errors.observe(errors, now, times) && errors {
            let cause = ManualCause::Redis {
                state: redis.state,
                error_replies_per_minute: redis.error_replies_per_minute,
                rejected_per_minute: redis.rejected_per_minute,
            };
            self.enter_manual(cause, decisions);
        }
        let levels_well = self
            .trackers
            .values()
            .all(|tracker| tracker.raw() == Level::Healthy && tracker.held() == Level::Healthy);
        let redis_well = !matches!(redis.state, RedisState::Down | RedisState::Hung);
        if levels_well && redis_well && !slow && !errors {
            self.healthy_since.get_or_insert(now);
        } else {
            self.healthy_since = None;
        }
    }

    pub(super) fn leave_manual_when_healthy(&mut self, decisions: &mut Vec<Decision>) {
        let long = self
            .healthy_since
            .is_some_and(|since| self.now().since(since) >= self.rules.manual_clear_after);
        if long && self.state.manual.is_some() {
            self.resume(ResumedBy::HealthyTime, decisions);
        }
    }
}
