//! A notice: word on the ring that a socket changed, unless one that waits there will do.
//!
//! A notice only says which socket to look at. Userspace first takes all that waits off the ring,
//! and then looks: whatever is in `SOCKETS` before the reader has passed a socket's latest notice
//! will be seen. So of a connection that ends within the reader's pause, however often it changed,
//! one notice crosses the border.

use aya_ebpf::{
    bindings::{
        BPF_RB_AVAIL_DATA, BPF_RB_CONS_POS, BPF_RB_FORCE_WAKEUP, BPF_RB_PROD_POS, BPF_RB_RING_SIZE,
    },
    helpers::generated::bpf_ktime_get_boot_ns,
    maps::ring_buf::RingBufEntry,
};
use tracer_ebpf::abi::{
    counters::Counter,
    event::{DESTROYED, RING_FILLING_PART, SOCKET, SocketEvent},
    socket::{SocketRecord, TrackedSocket},
};

use crate::{
    globals::config,
    maps::{EVENTS, count, full_barrier, header},
    record::{self, Ended},
    sock::TCP_CLOSE,
};

/// For `TrackedSocket::noticed_at`, asked before the notice is sent: it stands there or later.
#[inline(always)]
pub(crate) fn next_place() -> u64 {
    EVENTS.query(u64::from(BPF_RB_PROD_POS)) + 1
}

/// For an entry that carries a stack, as it is submitted. A process may send 200 of them at once, of
/// 33 KiB each, and is not the only one.
#[inline(always)]
pub(crate) fn wake_up() -> u64 {
    let filled = EVENTS.query(u64::from(BPF_RB_AVAIL_DATA));
    if filled > EVENTS.query(u64::from(BPF_RB_RING_SIZE)) / RING_FILLING_PART {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        0
    }
}

/// Does the reader still have this socket's latest notice before it? Of followed processes every
/// change is told: how each socket ended is what they are followed for.
#[inline(always)]
fn waits(noticed_at: u64) -> bool {
    if config!(follow_children) != 0 {
        return false;
    }
    EVENTS.query(u64::from(BPF_RB_CONS_POS)) < noticed_at
}

/// Tells of a change that was just made to `tracked`.
///
/// # Safety
///
/// `tracked` points to a value of `SOCKETS`.
#[inline(always)]
pub(crate) unsafe fn changed(sock: u64, tracked: *mut TrackedSocket, now_ns: u64) {
    // SAFETY: the caller's promise. The reader moves on before it looks, so the change must be
    // there before we ask how far it is.
    let noticed_at = unsafe {
        let noticed_at = &raw mut (*tracked).noticed_at;
        full_barrier(noticed_at);
        noticed_at.read_volatile()
    };
    if waits(noticed_at) {
        return;
    }
    let place = next_place();
    // SAFETY: the caller's promise. It may change while it is copied; whoever changes it tells.
    if unsafe { send(SOCKET, now_ns, sock, &raw const (*tracked).record) } {
        // SAFETY: as above. Only now: a notice that found the ring full does not wait there.
        unsafe { (*tracked).noticed_at = place };
    }
}

/// Tells of a socket whose record just ended, which is a full barrier.
///
/// # Safety
///
/// What remains of the record is there.
#[inline(always)]
pub(crate) unsafe fn destroyed(sock: u64, ended: &Ended) {
    if waits(ended.noticed_at) {
        return;
    }
    // SAFETY: the helper only reads a clock.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: the caller's promise; the record is no program's but ours.
    let entry = unsafe { fill(DESTROYED, now_ns, sock, ended.remains) };
    if let Some(mut entry) = entry {
        // SAFETY: the entry is ours until it is submitted.
        unsafe {
            let record = &raw mut (*entry.as_mut_ptr()).record;
            // What a vacant slot does not say any more, and what no other hook says.
            (*record).opened_ns = ended.opened_ns;
            (*record).flags = ended.flags;
            (*record).state = TCP_CLOSE;
        }
        entry.submit(0);
    }
}

/// Tells of a record that begins, in whose value `next_place` stands already. False if the ring
/// was full: then no notice waits there.
#[inline(always)]
pub(crate) fn began(sock: u64, record: &SocketRecord) -> bool {
    // SAFETY: a reference is valid.
    unsafe { send(SOCKET, record.opened_ns, sock, record) }
}

/// Puts what the record `from` says on the ring, or counts the loss.
///
/// # Safety
///
/// As of [`fill`].
#[inline(always)]
unsafe fn send(kind: u32, time_ns: u64, sock: u64, from: *const SocketRecord) -> bool {
    // SAFETY: the caller's promise.
    let entry = unsafe { fill(kind, time_ns, sock, from) };
    entry.map(|entry| entry.submit(0)).is_some()
}

/// An entry of the ring that says what the record `from` does. `None` if there is no room, which
/// is counted.
///
/// # Safety
///
/// `from` points to a record; it may change while it is copied.
#[inline(always)]
unsafe fn fill(
    kind: u32,
    time_ns: u64,
    sock: u64,
    from: *const SocketRecord,
) -> Option<RingBufEntry<SocketEvent>> {
    let Some(mut entry) = EVENTS.reserve::<SocketEvent>(0) else {
        count(Counter::RingFull);
        return None;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry is ours until it is submitted; the caller's promise for the record.
    unsafe {
        (&raw mut (*event).header).write(header::<SocketEvent>(kind, time_ns));
        (&raw mut (*event).socket).write(sock);
        record::copy(&raw mut (*event).record, from);
    }
    Some(entry)
}
