//! A timestamp is a reading of CLOCK_BOOTTIME, the only clock the policy trusts.
//!
//! The wall clock jumps (NTP, a wrong RTC, a person); the boot clock does not, and it counts
//! suspended time. Across a reboot it starts again at zero: what was stored is then moved before
//! zero by [`Timestamp::rebase`], which counts only the time since boot as passed. That is a lower
//! bound of the truth, so no clock can ever shorten a cooldown.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Nanoseconds of CLOCK_BOOTTIME; negative when it was taken before the running boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const ZERO: Self = Self(0);

    pub const fn from_ns(boottime_ns: i64) -> Self {
        Self(boottime_ns)
    }

    pub fn from_boottime(since_boot: Duration) -> Self {
        Self(saturating_ns(since_boot))
    }

    pub const fn as_ns(self) -> i64 {
        self.0
    }

    /// Time from `earlier` to here; zero when `earlier` lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        let passed_ns = self.0.saturating_sub(earlier.0);
        Duration::from_nanos(u64::try_from(passed_ns).unwrap_or(0))
    }

    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(saturating_ns(span)))
    }

    /// The same moment seen from a later boot, given when the old boot's state was last saved.
    #[must_use]
    pub fn rebase(self, saved_at: Self) -> Self {
        Self(self.0.saturating_sub(saved_at.0).min(0))
    }
}

fn saturating_ns(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_boot_counts_only_its_own_time_as_passed() {
        let restart = Timestamp::from_boottime(Duration::from_secs(1_000));
        let saved = Timestamp::from_boottime(Duration::from_secs(1_060));
        let now = Timestamp::from_boottime(Duration::from_secs(30));
        assert_eq!(now.since(restart.rebase(saved)), Duration::from_secs(90));
    }

    #[test]
    fn a_moment_ahead_has_not_passed() {
        let ahead = Timestamp::from_ns(10);
        assert_eq!(Timestamp::ZERO.since(ahead), Duration::ZERO);
    }
}
