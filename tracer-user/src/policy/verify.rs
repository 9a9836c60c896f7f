//! A verification watches whether an action helped: the count must fall, and stay.

use serde::{Deserialize, Serialize};

use super::decision::{Subject, Verdict};
use super::level::Level;
use super::rules::{Rules, Rung};
use super::timestamp::Timestamp;

/// A least-squares line through (minutes, count), kept as sums so that it can be stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slope {
    samples: f64,
    sum_x: f64,
    sum_y: f64,
    sum_xx: f64,
    sum_xy: f64,
}

impl Slope {
    pub fn add(&mut self, minutes: f64, count: f64) {
        self.samples += 1.0;
        self.sum_x += minutes;
        self.sum_y += count;
        self.sum_xx += minutes * minutes;
        self.sum_xy += minutes * count;
    }

    pub fn per_minute(&self) -> f64 {
        let spread = self.samples * self.sum_xx - self.sum_x * self.sum_x;
        if spread <= f64::EPSILON {
            return 0.0;
        }
        (self.samples * self.sum_xy - self.sum_x * self.sum_y) / spread
    }
}

/// What is counted now, for the action being verified.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) count: u32,
    pub(super) unit_count: u32,
    pub(super) raw: Level,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    pub id: u64,
    pub unit: String,
    pub rung: Rung,
    pub subject: Subject,
    pub unit_count_before: u32,
    pub done_at: Timestamp,
    /// The first window is over and the count had fallen.
    pub fell: bool,
    pub slope: Slope,
}

impl Verification {
    /// While the first window is open nothing else is done: the count has not had time to fall.
    pub(super) fn is_open(&self) -> bool {
        !self.fell
    }

    pub(super) fn observe(
        &mut self,
        now: Timestamp,
        seen: Counts,
        rules: &Rules,
    ) -> Option<Verdict> {
        let passed = now.since(self.done_at);
        if passed < rules.verify_window {
            return None;
        }
        if !self.fell {
            let halved = seen.unit_count <= self.unit_count_before / 2;
            if seen.raw == Level::Critical && !halved {
                return Some(Verdict::NotFallen {
                    count: seen.count,
                    unit_count: seen.unit_count,
                });
            }
            self.fell = true;
        }
        self.slope
            .add(passed.as_secs_f64() / 60.0, f64::from(seen.unit_count));
        (passed >= rules.verify_window.saturating_add(rules.settle_window))
            .then(|| self.settle(seen, rules))
    }

    /// A pool that warms up grows too: only growth beyond HEALTHY is held against the action.
    fn settle(&self, seen: Counts, rules: &Rules) -> Verdict {
        let growth = self.slope.per_minute();
        let grows = growth > rules.settle_growth_per_minute && seen.raw > Level::Healthy;
        if grows || seen.raw == Level::Critical {
            self.grows_again(seen)
        } else {
            self.helped(seen)
        }
    }

    pub(super) fn grows_again(&self, seen: Counts) -> Verdict {
        Verdict::GrowsAgain {
            count: seen.count,
            unit_count: seen.unit_count,
            growth_per_minute: self.slope.per_minute(),
        }
    }

    fn helped(&self, seen: Counts) -> Verdict {
        Verdict::Helped {
            count: seen.count,
            unit_count: seen.unit_count,
            growth_per_minute: self.slope.per_minute(),
        }
    }

    /// When the next window ends.
    pub(super) fn deadline(&self, rules: &Rules) -> Timestamp {
        let first = self.done_at.after(rules.verify_window);
        if self.fell {
            first.after(rules.settle_window)
        } else {
            first
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_slope() {
        let mut slope = Slope::default();
        assert_eq!(slope.per_minute(), 0.0);
        for minute in 0..5 {
            slope.add(f64::from(minute), 10.0 + 3.0 * f64::from(minute));
        }
        assert!((slope.per_minute() - 3.0).abs() < 1e-9);
    }
}
