//! What each CPU has of its own: the value of `CPUS`.

use super::{counters::COUNTERS, socket::TrackedSocket};

/// Programs that have a twin.
pub const TWINNED: usize = 2;
/// Programs that can be at the same event, one on top of the other.
pub const TURNS: usize = 3;

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Is a program that has a twin at work?
    pub running: [u32; TWINNED],
    /// Indexed by `Counter`.
    pub counters: [u64; COUNTERS],
    /// Where records are made: here they cost no stack, of which a program and all it calls have
    /// 512 bytes.
    pub drafts: [TrackedSocket; TURNS],
}

#[cfg(feature = "user")]
// SAFETY: repr(C), integers and byte arrays only, no padding: any bytes are a value.
unsafe impl aya::Pod for Cpu {}
