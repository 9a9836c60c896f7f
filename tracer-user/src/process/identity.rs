//! A process's identity: a PID is used again, a PID with its start time is not.

use serde::{Deserialize, Serialize};

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct ProcessKey {
    /// The thread group ID, in the namespace that connleak runs in.
    pub pid: u32,
    /// `start_boottime` of the thread group leader.
    pub start_time_ns: u64,
}

/// USER_HZ, in which /proc/PID/stat tells times (include/asm-generic/param.h).
const USER_HZ: u64 = 100;

impl ProcessKey {
    /// Does field 22 of /proc/PID/stat, in clock ticks, name this process?
    pub fn started_at_tick(self, ticks: u64) -> bool {
        self.start_time_ns / (1_000_000_000 / USER_HZ) == ticks
    }
}
