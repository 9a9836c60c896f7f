//! An opening: connect was called on a watched socket. Whichever hook sees it records it here.

use aya_ebpf::{bindings::BPF_ANY, helpers::generated::bpf_ktime_get_boot_ns};
use tracer_ebpf::abi::{
    counters::Counter,
    event::{SOCKET, SocketEvent},
    socket::{OWN, SERVER_END, STACK_LOST, STACK_SPARED, SocketRecord, TrackedSocket},
};

use crate::{
    filter::Match,
    globals::config,
    maps::{SOCKETS, count, header, notify},
    notice,
    sock::{Sock, TCP_SYN_SENT},
    stack, tally,
    task::{Task, claim},
};

/// Runs in the context of the process that called connect.
#[inline(always)]
pub(crate) fn record(sock: Sock, matched: Match) -> Option<()> {
    // SAFETY: the helper only reads a clock.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    let task = Task::current();
    let mut event = SocketEvent {
        header: header::<SocketEvent>(SOCKET, now_ns),
        socket: sock.0,
        record: SocketRecord::ZERO,
    };
    let record = &mut event.record;
    record.opened_ns = now_ns;
    record.changed_ns = now_ns;
    record.state = TCP_SYN_SENT;
    record.local_port = matched.local_port;
    record.remote_port = matched.remote_port;
    if matched.server_end {
        record.flags = SERVER_END;
    }
    sock.describe(record);
    claim(record, task);
    let mut wants_stack = tally::opened(record) && record.flags & OWN == 0;
    if config!(stack_pages) == 0 {
        wants_stack = false;
    } else if !wants_stack {
        record.flags |= STACK_SPARED;
        count(Counter::StackSpared);
    }
    // A second connect on the same socket, after a failed one, starts its life again.
    let tracked = TrackedSocket {
        record: event.record,
        noticed_at: notice::next_place(),
    };
    if SOCKETS.insert(sock.0, tracked, u64::from(BPF_ANY)).is_err() {
        count(Counter::MapFull);
        return None;
    }
    if wants_stack {
        if stack::send(&event, task) {
            return Some(());
        }
        event.record.flags |= STACK_LOST;
        // SAFETY: the value's memory outlives the program's run; one byte is written.
        unsafe { (*SOCKETS.get_ptr_mut(sock.0)?).record.flags |= STACK_LOST };
    }
    if !notify(&event) {
        notice::was_lost(sock);
    }
    Some(())
}
