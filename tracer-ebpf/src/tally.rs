//! A tally: what each process opened and closed, and whether its next stack is worth its price.

use aya_ebpf::bindings::BPF_NOEXIST;
use tracer_ebpf::abi::{
    counters::Counter,
    socket::{OpenerCounts, OpenerKey, SERVER_END, SocketRecord},
};

use crate::{
    globals::config,
    maps::{OPENERS, count, increment},
};

const SECOND_NS: u64 = 1_000_000_000;

#[inline(always)]
pub(crate) fn key(tgid: u32, start_ns: u64) -> OpenerKey {
    OpenerKey {
        start_ns,
        tgid,
        padding: 0,
    }
}

/// Counts one connect of the record's opener. True if its stack is to be taken.
#[inline(always)]
pub(crate) fn opened(record: &SocketRecord, now_ns: u64) -> bool {
    let key = key(record.opener_tgid, record.opener_start_ns);
    let counts = OPENERS.get_ptr_mut(key).or_else(|| {
        // Fails if another CPU was first: then there is an entry all the same.
        let _ = OPENERS.insert(key, OpenerCounts::ZERO, u64::from(BPF_NOEXIST));
        OPENERS.get_ptr_mut(key)
    });
    let Some(counts) = counts else {
        count(Counter::OpenersFull);
        return true;
    };
    let (limit, mask) = (config!(stacks_per_second), config!(stack_sample_mask));
    // SAFETY: a pointer into a value of the map, whose memory outlives the program's run. The
    // counts are changed atomically; the window is not, and a race costs one stack more or less.
    unsafe {
        increment(&raw mut (*counts).opened);
        if now_ns - (*counts).window_ns > SECOND_NS {
            (*counts).window_ns = now_ns;
            (*counts).in_window = 0;
        }
        (*counts).in_window += 1;
        let beyond = (*counts).in_window;
        beyond <= u64::from(limit) || beyond & u64::from(mask) == 0
    }
}

/// Whose socket it is that ends, and had `flags`. `None` of an accepted end: nobody here opened it,
/// though its process may open others.
///
/// # Safety
///
/// `record` is what remains of it.
#[inline(always)]
pub(crate) unsafe fn opener(record: *const SocketRecord, flags: u8) -> Option<OpenerKey> {
    if flags & SERVER_END != 0 {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { key((*record).opener_tgid, (*record).opener_start_ns) })
}

/// Counts the end of a socket that its opener opened while tracing.
#[inline(always)]
pub(crate) fn closed(opener: OpenerKey) {
    if let Some(counts) = OPENERS.get_ptr_mut(opener) {
        // SAFETY: as in `opened`.
        unsafe { increment(&raw mut (*counts).closed) };
    }
}

/// Was it started by connleak, or by a process that was?
#[inline(always)]
pub(crate) fn is_followed(tgid: u32, start_ns: u64) -> bool {
    if config!(follow_children) == 0 {
        return false;
    }
    if tgid == config!(own_tgid) {
        return true;
    }
    let counts = OPENERS.get_ptr(key(tgid, start_ns));
    // SAFETY: a pointer into a value of the map, whose memory outlives the program's run.
    counts.is_some_and(|counts| unsafe { (*counts).followed } != 0)
}

/// Gives a process an entry before its first connect, so that its children find it.
#[inline(always)]
pub(crate) fn follow(tgid: u32, start_ns: u64) {
    let key = key(tgid, start_ns);
    let counts = OpenerCounts {
        followed: 1,
        ..OpenerCounts::ZERO
    };
    if OPENERS.insert(key, counts, u64::from(BPF_NOEXIST)).is_err() {
        count(Counter::OpenersFull);
    }
}

/// A test suite starts more processes than the map has room for; few of them connect.
#[inline(always)]
pub(crate) fn forget_if_unused(tgid: u32, start_ns: u64) {
    let key = key(tgid, start_ns);
    let Some(counts) = OPENERS.get_ptr(key) else {
        return;
    };
    // SAFETY: as in `is_followed`.
    if unsafe { (*counts).opened } == 0 {
        let _ = OPENERS.remove(key);
    }
}

/// Does this process have sockets that connleak follows?
#[inline(always)]
pub(crate) fn is_opener(tgid: u32, start_ns: u64) -> bool {
    OPENERS.get_ptr(key(tgid, start_ns)).is_some()
}
