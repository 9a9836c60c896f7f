//! An opening: connect was called on a watched socket. Whichever hook sees it records it here.
//!
//! It has two halves. The record begins at SYN_SENT, whatever the family: its tracepoint cannot be
//! preempted, while a program at `tcp_connect` is left out when another task was preempted inside
//! it on the same CPU (fentry), or when any task was while it read one of our maps (kprobe,
//! `bpf_prog_active`). So what such a miss costs is a stack, never a socket or its opener. The
//! record is told of, with its stack, by connect where that is hooked, else at once.

use aya_ebpf::{bindings::BPF_ANY, helpers::generated::bpf_ktime_get_boot_ns};
use tracer_ebpf::abi::{
    counters::Counter,
    socket::{
        OWN, SERVER_END, STACK_LOST, STACK_MISSED, STACK_SPARED, SocketRecord, TrackedSocket,
    },
};

use crate::{
    filter::Match,
    globals::config,
    maps::{SOCKETS, count},
    notice,
    sock::{Sock, TCP_SYN_SENT},
    stack, tally,
    task::{Task, claim},
};

/// Begins the record of `sock`, in the context of the process that called connect.
///
/// `told_later`: connect is hooked, and tells of it.
#[inline(always)]
pub(crate) fn begin(sock: Sock, matched: Match, told_later: bool) {
    let Match {
        local_port,
        remote_port,
        server_end,
    } = matched;
    let flags = if server_end { SERVER_END } else { 0 };
    let missed = if told_later { STACK_MISSED } else { 0 };
    insert(sock.0, remote_port, local_port, flags, missed);
}

/// A function of its own to the verifier too: its many ways end here, where inlined everything
/// after it would be verified once for each of them.
#[inline(never)]
fn insert(sock: u64, remote_port: u16, local_port: u16, flags: u8, missed: u8) {
    let sock = Sock(sock);
    // Filled in where it stands: a copy more, and 6.1 counts more than 512 bytes of stack.
    let mut tracked = TrackedSocket {
        record: SocketRecord::ZERO,
        noticed_at: 0,
    };
    let record = &mut tracked.record;
    // SAFETY: the helper only reads a clock.
    record.opened_ns = unsafe { bpf_ktime_get_boot_ns() };
    record.changed_ns = record.opened_ns;
    record.state = TCP_SYN_SENT;
    record.local_port = local_port;
    record.remote_port = remote_port;
    record.flags = flags;
    sock.describe(record);
    claim(record, Task::current());
    let wants_stack = tally::opened(record) && record.flags & OWN == 0;
    if config!(stack_pages) != 0 {
        if wants_stack {
            record.flags |= missed;
        } else {
            record.flags |= STACK_SPARED;
            count(Counter::StackSpared);
        }
    }
    // A second connect on the same socket, after a failed one, starts its life again.
    if SOCKETS.insert(sock.0, tracked, u64::from(BPF_ANY)).is_err() {
        count(Counter::MapFull);
    }
}

/// Tells of a record that has begun, with its stack if it is to have one.
#[inline(always)]
pub(crate) fn tell(sock: Sock) -> Option<()> {
    let tracked = SOCKETS.get_ptr_mut(sock.0)?;
    // SAFETY: the value's memory outlives the program's run, and the socket's lock keeps its other
    // hooks away.
    let record = unsafe {
        (*tracked).noticed_at = notice::next_place();
        if (*tracked).record.flags & STACK_MISSED == STACK_MISSED {
            (*tracked).record.flags &= !STACK_MISSED;
        }
        &raw mut (*tracked).record
    };
    let opened = stack::Opened {
        socket: sock.0,
        // SAFETY: as above.
        record: unsafe { &*record },
    };
    let wants_stack = config!(stack_pages) != 0 && opened.record.flags & (OWN | STACK_SPARED) == 0;
    if wants_stack {
        if stack::send(opened, Task::current()) {
            return Some(());
        }
        // SAFETY: as above; the reference is not used any more.
        unsafe { (*record).flags |= STACK_LOST };
    }
    // SAFETY: as above.
    unsafe { notice::began(sock, record, (*record).opened_ns) };
    Some(())
}
