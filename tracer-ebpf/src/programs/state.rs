//! state: a socket moves through TCP's states, as often in softirq as in its process.
//!
//! Never read the process here, except at SYN_SENT, which connect alone sets.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::bpf_ktime_get_boot_ns,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use tracer_ebpf::abi::{
    counters::Counter,
    event::{SOCKET, SocketEvent},
    socket::{ABANDONED, LET_GO, SERVER_END, SocketRecord, TrackedSocket},
};

use super::done;
use crate::{
    filter::{self, Match},
    maps::{SOCKETS, count, header, notify},
    notice, opening,
    sock::{Ports, Sock, TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_LAST_ACK, TCP_LISTEN, TCP_SYN_SENT},
    task::Task,
};

#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn state_btf(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock(ctx.arg(0));
    // SAFETY: it is an argument of this tp_btf program.
    let ports = unsafe { sock.ports_of_argument() };
    done!(state::<false>(sock, ports, ctx.arg::<i32>(2)))
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub(crate) fn state_raw(ctx: RawTracePointContext) -> i32 {
    let sock = Sock(ctx.arg(0));
    done!(
        sock.ports()
            .and_then(|ports| state::<false>(sock, ports, ctx.arg::<i32>(2)))
    )
}

/// Where `tcp_connect` cannot be hooked: SYN_SENT stands for it.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn state_connect_btf(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock(ctx.arg(0));
    // SAFETY: it is an argument of this tp_btf program.
    let ports = unsafe { sock.ports_of_argument() };
    done!(state::<true>(sock, ports, ctx.arg::<i32>(2)))
}

/// As [`state_connect_btf`].
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub(crate) fn state_connect_raw(ctx: RawTracePointContext) -> i32 {
    let sock = Sock(ctx.arg(0));
    done!(
        sock.ports()
            .and_then(|ports| state::<true>(sock, ports, ctx.arg::<i32>(2)))
    )
}

#[inline(always)]
fn state<const OPENS: bool>(sock: Sock, ports: Ports, new: i32) -> Option<()> {
    let matched = filter::matched(sock, ports)?;
    let new = new as u8;
    if new == TCP_SYN_SENT {
        // The tracepoint also serves SCTP, whose sockets have other fields, and MPTCP, whose
        // subflows are the TCP sockets.
        if !OPENS || !sock.is_tcp() {
            return None;
        }
        return opening::record(sock, matched);
    }
    // SAFETY: the helper only reads a clock.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    let Some(tracked) = SOCKETS.get_ptr_mut(sock.0) else {
        // The server end of a new connection. Any other state without a record belongs to a
        // socket older than tracing, which the iterator adds, or to a listener.
        if new != TCP_ESTABLISHED || !matched.server_end || !sock.is_tcp() {
            return None;
        }
        return begin_server_end(sock, matched, now_ns);
    };
    if new == TCP_LISTEN {
        return None;
    }
    // SAFETY: the value's memory outlives the program's run, even if the entry is removed.
    unsafe {
        let record = &raw mut (*tracked).record;
        (*record).state = new;
        (*record).changed_ns = now_ns;
        if new == TCP_ESTABLISHED {
            // The local port and address are chosen after SYN_SENT.
            (*record).established_ns = now_ns;
            (*record).local_port = matched.local_port;
            let (local, _) = sock.addresses((*record).family);
            (*record).local_addr = local;
        }
        // Only close and shutdown lead here (net/ipv4/tcp.c, tcp_close_state), in the process
        // that calls them.
        if new == TCP_FIN_WAIT1 || new == TCP_LAST_ACK {
            (*record).flags |= LET_GO;
            if Task::current().is_exiting() {
                (*record).flags |= ABANDONED;
            }
        }
        notice::changed(sock, tracked, now_ns);
    }
    Some(())
}

/// No process is known here: accept says it, or the holder of the listener.
#[inline(always)]
fn begin_server_end(sock: Sock, matched: Match, now_ns: u64) -> Option<()> {
    let mut event = SocketEvent {
        header: header::<SocketEvent>(SOCKET, now_ns),
        socket: sock.0,
        record: SocketRecord::ZERO,
    };
    let record = &mut event.record;
    record.opened_ns = now_ns;
    record.established_ns = now_ns;
    record.changed_ns = now_ns;
    record.state = TCP_ESTABLISHED;
    record.flags = SERVER_END;
    record.local_port = matched.local_port;
    record.remote_port = matched.remote_port;
    sock.describe(record);
    let tracked = TrackedSocket {
        record: event.record,
        noticed_at: notice::next_place(),
    };
    if SOCKETS
        .insert(sock.0, tracked, u64::from(BPF_NOEXIST))
        .is_err()
    {
        count(Counter::MapFull);
        return None;
    }
    if !notify(&event) {
        notice::was_lost(sock);
    }
    Some(())
}
