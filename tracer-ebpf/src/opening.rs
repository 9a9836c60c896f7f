//! An opening: connect was called on a watched socket. Whichever hook sees it records it here.
//!
//! It has two halves. The record begins at SYN_SENT, whatever the family: its program cannot be
//! preempted (since 7.0 by way of perf, see [`crate::preempted`]), while a program at `tcp_connect`
//! is left out when another task was preempted inside it on the same CPU (fentry), or when any task
//! was while it read one of our maps (kprobe, `bpf_prog_active`). So what such a miss costs is a
//! stack, never a socket or its opener. The record is told of, with its stack, by connect where that
//! is hooked, else at once.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use tracer_ebpf::abi::{
    counters::Counter,
    socket::{
        OWN, SERVER_END, STACK_LOST, STACK_MISSED, STACK_SPARED, SocketRecord, TrackedSocket,
    },
};

use crate::{
    filter::Match,
    globals::config,
    maps::count,
    notice, record,
    running::Turn,
    sock::{SockFields, TCP_SYN_SENT},
    stack, tally,
    task::{Task, claim},
};

/// Begins the record of `sock`, in the context of the process that called connect.
///
/// `TELLS` of it too: else connect is hooked, and does.
#[inline(always)]
pub(crate) fn begin<const TELLS: bool>(
    sock: impl SockFields,
    matched: Match,
    turn: Turn,
) -> Option<()> {
    // SAFETY: the helper only reads a clock.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    let draft = record::draft(turn)?;
    // SAFETY: a draft is ours until we end.
    let record = unsafe { &mut (*draft).record };
    record.opened_ns = now_ns;
    record.changed_ns = now_ns;
    record.state = TCP_SYN_SENT;
    record.local_port = matched.local_port;
    record.remote_port = matched.remote_port;
    sock.describe(record);
    let flags = claim(record, Task::current());
    record.flags = flags | if matched.server_end { SERVER_END } else { 0 };
    record.flags |= stack_flags(record, now_ns, !TELLS);
    let is_spared = record.flags & STACK_MISSED == STACK_SPARED;
    // SAFETY: as above.
    let is_entered = unsafe {
        if TELLS {
            (*draft).noticed_at = notice::next_place();
        }
        // A second connect on the same socket, after a failed one, starts its life again.
        record::enter(sock.address(), draft)
    };
    if !is_entered {
        return None;
    }
    if is_spared {
        count(Counter::StackSpared);
    }
    // SAFETY: as above.
    if TELLS && !unsafe { send(sock.address(), draft) } {
        amend(sock.address(), draft)?;
    }
    Some(())
}

/// What becomes of its stack, as far as that is known before it is taken.
#[inline(always)]
fn stack_flags(record: &SocketRecord, now_ns: u64, told_later: bool) -> u8 {
    // From a watched port, to one that is not: no connection to Redis, and in no tally.
    let is_client = record.flags & SERVER_END == 0;
    let wants_stack = (!is_client || tally::opened(record, now_ns)) && record.flags & OWN == 0;
    if config!(stack_pages) == 0 {
        return 0;
    }
    if !wants_stack {
        return STACK_SPARED;
    }
    if told_later { STACK_MISSED } else { 0 }
}

/// Tells of a record that has begun, with its stack if it is to have one.
///
/// # Safety
///
/// `tracked` points to a value of `SOCKETS`, and the lock of its socket keeps other hooks away.
#[inline(always)]
pub(crate) unsafe fn tell(sock: u64, tracked: *mut TrackedSocket) {
    // SAFETY: the caller's promise.
    unsafe {
        (*tracked).noticed_at = notice::next_place();
        if (*tracked).record.flags & STACK_MISSED == STACK_MISSED {
            (*tracked).record.flags &= !STACK_MISSED;
        }
        send(sock, tracked);
    }
}

/// False if `tracked` now says something else than before: its stack, or its notice, was lost.
///
/// # Safety
///
/// As of [`tell`], or it is a draft of the caller's.
#[inline(always)]
unsafe fn send(sock: u64, tracked: *mut TrackedSocket) -> bool {
    let opened = stack::Opened {
        socket: sock,
        // SAFETY: the caller's promise.
        record: unsafe { &(*tracked).record },
    };
    let wants_stack = config!(stack_pages) != 0 && opened.record.flags & (OWN | STACK_SPARED) == 0;
    if wants_stack {
        if stack::send(opened, Task::current()) {
            return true;
        }
        // SAFETY: as above; the reference is not used any more.
        unsafe { (*tracked).record.flags |= STACK_LOST };
    }
    // SAFETY: as above.
    let is_told = unsafe { notice::began(sock, &(*tracked).record) };
    if !is_told {
        // SAFETY: as above.
        unsafe { (*tracked).noticed_at = 0 };
    }
    is_told && !wants_stack
}

/// Has the record in `SOCKETS` say what its draft came to say after it was entered.
#[inline(always)]
fn amend(sock: u64, draft: *const TrackedSocket) -> Option<()> {
    let tracked = record::of(sock)?;
    // SAFETY: a value of the map, which outlives the program's run; the lock of the socket keeps
    // other hooks away. The draft is the caller's.
    unsafe {
        (*tracked).record.flags = (*draft).record.flags;
        (*tracked).noticed_at = (*draft).noticed_at;
    }
    Some(())
}
