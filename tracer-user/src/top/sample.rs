//! A sample: what is known at one moment, from a trace of our own or from the daemon's.

use std::time::Duration;

use crate::{
    policy::level::Level,
    report::{Listing, Report, model::OpenerReport},
};

#[derive(Clone, Debug)]
pub struct Sample {
    /// On a clock that only goes forward; when it began does not matter.
    pub at: Duration,
    pub origin: Origin,
    pub report: Report,
    /// Whose stacks and sockets the report was asked for.
    pub listing: Listing,
    /// Connections on all watched ports, as the levels count them.
    pub count: u32,
    /// The worst of all that has a level.
    pub level: Level,
    /// Why the daemon does nothing more by itself.
    pub manual: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Trace,
    Daemon { pid: u32 },
}

/// What tells an opener from the next process with its PID. Neither is known of unattributed
/// sockets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct OpenerKey {
    pub(super) pid: Option<u32>,
    start_time: Option<String>,
}

impl OpenerKey {
    pub(super) fn of(opener: &OpenerReport) -> Self {
        Self {
            pid: opener.pid,
            start_time: opener.start_time.clone(),
        }
    }
}
