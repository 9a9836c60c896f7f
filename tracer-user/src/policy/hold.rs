//! A hold is a condition that counts only once it has lasted.

use std::time::Duration;

use super::timestamp::Timestamp;

/// How long a condition must last before it is believed, each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldTimes {
    pub up: Duration,
    pub down: Duration,
}

/// The believed value, and since when the observed one has contradicted it without a break.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hold {
    on: bool,
    contrary_since: Option<Timestamp>,
}

impl Hold {
    pub fn is_on(self) -> bool {
        self.on
    }

    /// Takes one observation; true when it changed what is believed.
    pub fn observe(&mut self, raw: bool, now: Timestamp, times: HoldTimes) -> bool {
        if raw == self.on {
            self.contrary_since = None;
            return false;
        }
        let since = *self.contrary_since.get_or_insert(now);
        if now.since(since) < self.wait(times) {
            return false;
        }
        self.on = raw;
        self.contrary_since = None;
        true
    }

    /// When the belief changes if nothing else is observed until then.
    pub fn deadline(self, times: HoldTimes) -> Option<Timestamp> {
        self.contrary_since
            .map(|since| since.after(self.wait(times)))
    }

    fn wait(self, times: HoldTimes) -> Duration {
        if self.on { times.down } else { times.up }
    }
}
