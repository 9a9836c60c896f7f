//! An answer: one entry of a map, read for userspace by a program that it runs.

use super::socket::{OpenerCounts, TrackedSocket};

/// First argument of the program `ask`: the record of the socket at the second.
pub const SOCKET: u64 = 0;
/// Takes that record out.
pub const FORGET_SOCKET: u64 = 1;
/// The tally of the process that started at the second argument and whose tgid is the third.
pub const OPENER: u64 = 2;
/// Takes that tally out.
pub const FORGET_OPENER: u64 = 3;

/// Arguments of `ask`.
pub const ARGUMENTS: usize = 3;

/// The only value of `ANSWER`; which of the two values it has, the question says.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 1 if there is such an entry, or was one to be taken out.
    pub is_there: u64,
    pub tracked: TrackedSocket,
    pub counts: OpenerCounts,
}

const _: () = assert!(size_of::<Answer>() == 264);
