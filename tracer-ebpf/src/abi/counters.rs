//! A counter, of which each CPU has one, so that nothing is lost without a number.

/// Index into `Cpu::counters`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Events of TCP sockets that reached a program and were of no watched port.
    Passed,
    /// Events of a watched port.
    Matched,
    /// Notices that found the ring full. The record in `SOCKETS` is right all the same.
    RingFull,
    /// Sockets that found `SOCKETS` full: opened, but not tracked.
    MapFull,
    /// Processes that found `OPENERS` full: their opened and closed counts are missing.
    OpenersFull,
    /// Stacks that found the ring full.
    StackRingFull,
    /// Stacks not taken because the process connects too often.
    StackSpared,
    /// Stack copies that ended at an unreadable page before the first byte.
    StackFault,
    /// Changes of `SOCKETS` that the kernel refused, though there was room: a bucket's lock was
    /// busy (`-EBUSY` since 5.11, `-EDEADLK` and `-ETIMEDOUT` of `rqspinlock` since 6.15).
    MapBusy,
    /// Runs of a program that the kernel left out, and its twin did.
    CaughtUp,
}

/// How many there are.
pub const COUNTERS: usize = 10;
