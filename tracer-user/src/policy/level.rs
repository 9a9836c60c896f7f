//! A level says how far a count is from healthy, and whether that has lasted.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::hold::{Hold, HoldTimes};
use super::timestamp::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    Healthy,
    Warning,
    Leak,
    Critical,
}

impl Level {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "HEALTHY",
            Self::Warning => "WARNING",
            Self::Leak => "LEAK",
            Self::Critical => "CRITICAL",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The lowest count of each level above HEALTHY; they rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thresholds {
    pub warning: u32,
    pub leak: u32,
    pub critical: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            warning: 26,
            leak: 50,
            critical: 100,
        }
    }
}

impl Thresholds {
    pub fn level(&self, count: u32) -> Level {
        if count >= self.critical {
            Level::Critical
        } else if count >= self.leak {
            Level::Leak
        } else if count >= self.warning {
            Level::Warning
        } else {
            Level::Healthy
        }
    }
}

/// How many connections a well day has; fewer means that clients are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    pub min: u32,
    pub max: u32,
    pub baseline: u32,
}

impl Default for Expected {
    fn default() -> Self {
        Self {
            min: 20,
            max: 30,
            baseline: 25,
        }
    }
}

/// How one count is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelRule {
    pub thresholds: Thresholds,
    /// None where no range is expected: nothing is ever missing.
    pub expected: Option<Expected>,
    pub hold: HoldTimes,
}

/// What one observation changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelChange {
    /// (from, to)
    pub level: Option<(Level, Level)>,
    /// Whether clients are now missing.
    pub missing: Option<bool>,
}

/// Each boundary between two levels is held on its own: a count that swings between LEAK and
/// CRITICAL has been at least LEAK all the time, and is believed to be.
#[derive(Clone, Debug)]
pub struct LevelTracker {
    rule: LevelRule,
    count: u32,
    warning: Hold,
    leak: Hold,
    critical: Hold,
    missing: Hold,
}

impl LevelTracker {
    pub fn new(rule: LevelRule) -> Self {
        Self {
            rule,
            count: 0,
            warning: Hold::default(),
            leak: Hold::default(),
            critical: Hold::default(),
            missing: Hold::default(),
        }
    }

    /// Takes over a changed rule; what is believed stays until the new one contradicts it.
    pub fn set_rule(&mut self, rule: LevelRule) {
        self.rule = rule;
    }

    pub fn rule(&self) -> &LevelRule {
        &self.rule
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// The level of the last count, held or not.
    pub fn raw(&self) -> Level {
        self.rule.thresholds.level(self.count)
    }

    /// The level that has lasted.
    pub fn held(&self) -> Level {
        if self.critical.is_on() {
            Level::Critical
        } else if self.leak.is_on() {
            Level::Leak
        } else if self.warning.is_on() {
            Level::Warning
        } else {
            Level::Healthy
        }
    }

    pub fn is_missing(&self) -> bool {
        self.missing.is_on()
    }

    pub fn observe(&mut self, count: u32, now: Timestamp) -> LevelChange {
        let (from, hold) = (self.held(), self.rule.hold);
        self.count = count;
        let raw = self.raw();
        self.warning.observe(raw >= Level::Warning, now, hold);
        self.leak.observe(raw >= Level::Leak, now, hold);
        self.critical.observe(raw >= Level::Critical, now, hold);
        let to = self.held();
        let few = self.rule.expected.is_some_and(|range| count < range.min);
        let missing = self.missing.observe(few, now, hold).then_some(few);
        LevelChange {
            level: (from != to).then_some((from, to)),
            missing,
        }
    }

    /// When the level changes if the count stays as it is.
    pub fn deadline(&self) -> Option<Timestamp> {
        [self.warning, self.leak, self.critical, self.missing]
            .into_iter()
            .filter_map(|hold| hold.deadline(self.rule.hold))
            .min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn rule(up_s: u64, down_s: u64) -> LevelRule {
        LevelRule {
            thresholds: Thresholds::default(),
            expected: Some(Expected::default()),
            hold: HoldTimes {
                up: Duration::from_secs(up_s),
                down: Duration::from_secs(down_s),
            },
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_boottime(Duration::from_secs(seconds))
    }

    #[test]
    fn the_old_thresholds_are_the_default() {
        let thresholds = Thresholds::default();
        for (count, level) in [
            (0, Level::Healthy),
            (25, Level::Healthy),
            (26, Level::Warning),
            (49, Level::Warning),
            (50, Level::Leak),
            (99, Level::Leak),
            (100, Level::Critical),
            (u32::MAX, Level::Critical),
        ] {
            assert_eq!(thresholds.level(count), level, "count {count}");
        }
    }

    #[test]
    fn a_burst_shorter_than_the_hold_changes_nothing() {
        let mut tracker = LevelTracker::new(rule(10, 30));
        assert_eq!(tracker.observe(500, at(0)).level, None);
        assert_eq!(tracker.observe(500, at(9)).level, None);
        assert_eq!(tracker.observe(20, at(10)).level, None);
        assert_eq!(tracker.observe(500, at(11)).level, None);
        assert_eq!(tracker.observe(500, at(20)).level, None);
        assert_eq!(
            tracker.observe(500, at(21)).level,
            Some((Level::Healthy, Level::Critical))
        );
    }

    #[test]
    fn with_no_hold_the_crossing_count_is_the_change() {
        let mut tracker = LevelTracker::new(rule(0, 0));
        tracker.observe(99, at(0));
        assert_eq!(
            tracker.observe(100, at(0)).level,
            Some((Level::Leak, Level::Critical))
        );
    }

    #[test]
    fn a_count_that_swings_above_a_boundary_holds_that_boundary() {
        let mut tracker = LevelTracker::new(rule(10, 30));
        for second in 0..=10 {
            tracker.observe(if second % 2 == 0 { 60 } else { 120 }, at(second));
        }
        assert_eq!(tracker.held(), Level::Leak);
    }

    #[test]
    fn a_level_falls_only_after_the_longer_hold() {
        let mut tracker = LevelTracker::new(rule(10, 30));
        tracker.observe(100, at(0));
        tracker.observe(100, at(10));
        tracker.observe(10, at(11));
        assert_eq!(tracker.observe(10, at(40)).level, None);
        assert_eq!(tracker.deadline(), Some(at(41)));
        assert_eq!(
            tracker.observe(10, at(41)).level,
            Some((Level::Critical, Level::Healthy))
        );
    }

    #[test]
    fn too_few_clients_are_missing_once_that_lasts() {
        let mut tracker = LevelTracker::new(rule(10, 30));
        tracker.observe(19, at(0));
        assert_eq!(tracker.observe(19, at(10)).missing, Some(true));
        tracker.observe(20, at(11));
        assert_eq!(tracker.observe(20, at(41)).missing, Some(false));
    }

    proptest! {
        #[test]
        fn a_held_level_was_reached_throughout_its_hold(
            steps in prop::collection::vec((0u32..140, 0u64..8), 1..200),
        ) {
            let mut tracker = LevelTracker::new(rule(10, 30));
            let mut history: Vec<(u64, Level)> = Vec::new();
            let mut now_s = 0;
            for (count, wait_s) in steps {
                now_s += wait_s;
                let change = tracker.observe(count, at(now_s));
                history.push((now_s, tracker.raw()));
                if let Some((from, to)) = change.level {
                    let since_s = now_s.saturating_sub(if to > from { 10 } else { 30 });
                    // The observation that began the window lies at or before its start.
                    let first = history.iter().rposition(|(at_s, _)| *at_s <= since_s);
                    let window = &history[first.unwrap_or(0)..];
                    if to > from {
                        prop_assert!(window.iter().skip(1).all(|(_, raw)| *raw >= to));
                    } else {
                        prop_assert!(window.iter().skip(1).all(|(_, raw)| *raw < from));
                    }
                }
            }
        }
    }
}
