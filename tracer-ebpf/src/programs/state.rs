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
    socket::{ABANDONED, LET_GO, SERVER_END, SocketRecord, TrackedSocket},
};

use super::done;
use crate::{
    filter::{self, Match},
    maps::{SOCKETS, count},
    notice, opening,
    sock::{Ports, Sock, TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_LAST_ACK, TCP_LISTEN, TCP_SYN_SENT},
    task::Task,
};

/// Where `tcp_connect` is hooked: SYN_SENT begins the record, connect tells of it.
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

/// Beside one of the above, for what it misses: a softirq that changes another socket's state
/// while the program runs in a process on the same CPU. The kernel leaves a program out that runs
/// there already (6.1, 05b24ff9b2cf); then this one does not run, or it is the one left out.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn state_again_btf(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock(ctx.arg(0));
    // SAFETY: it is an argument of this tp_btf program.
    let ports = unsafe { sock.ports_of_argument() };
    done!(again(sock, ports, ctx.arg::<i32>(2)))
}

/// As [`state_again_btf`].
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub(crate) fn state_again_raw(ctx: RawTracePointContext) -> i32 {
    let sock = Sock(ctx.arg(0));
    done!(
        sock.ports()
            .and_then(|ports| again(sock, ports, ctx.arg::<i32>(2)))
    )
}

#[inline(always)]
fn state<const TELLS: bool>(sock: Sock, ports: Ports, new: i32) -> Option<()> {
    let matched = filter::matched(sock, ports)?;
    let new = new as u8;
    if new != TCP_SYN_SENT {
        return follow(sock, matched, new, true);
    }
    // The tracepoint also serves SCTP, whose sockets have other fields, and MPTCP, whose subflows
    // are the TCP sockets.
    if !sock.is_tcp() {
        return None;
    }
    opening::begin(sock, matched, !TELLS);
    if TELLS {
        return opening::tell(sock);
    }
    Some(())
}

/// SYN_SENT is set in a process alone, where the state program cannot be running already.
#[inline(always)]
fn again(sock: Sock, ports: Ports, new: i32) -> Option<()> {
    let matched = filter::watched(sock, ports)?;
    let new = new as u8;
    if new == TCP_SYN_SENT {
        return None;
    }
    follow(sock, matched, new, false)
}

/// `counts`: a full map is one loss, though two programs meet it.
#[inline(always)]
fn follow(sock: Sock, matched: Match, new: u8, counts: bool) -> Option<()> {
    let Some(tracked) = SOCKETS.get_ptr_mut(sock.0) else {
        // The server end of a new connection. Any other state without a record belongs to a
        // socket older than tracing, which the iterator adds, or to a listener.
        if new != TCP_ESTABLISHED || !matched.server_end || !sock.is_tcp() {
            return None;
        }
        begin_server_end(sock.0, matched.local_port, matched.remote_port, counts);
        return None;
    };
    // SAFETY: the value's memory outlives the program's run, even if the entry is removed.
    unsafe {
        let record = &raw mut (*tracked).record;
        // The other program was here.
        if new == TCP_LISTEN || (*record).state == new {
            return None;
        }
        // SAFETY: the helper only reads a clock.
        let now_ns = bpf_ktime_get_boot_ns();
        (*record).state = new;
        (*record).changed_ns = now_ns;
        if new == TCP_ESTABLISHED {
            // The local port and address are chosen after SYN_SENT.
            (*record).established_ns = now_ns;
            (*record).local_port = matched.local_port;
            (*record).local_addr = sock.addresses((*record).family).0;
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
///
/// A function of its own, as is an opening's: together with it the record would not fit in the
/// 512 bytes that a program and what it calls have for their stacks.
#[inline(never)]
fn begin_server_end(sock: u64, local_port: u16, remote_port: u16, counts: bool) {
    let sock = Sock(sock);
    let mut tracked = TrackedSocket {
        record: SocketRecord::ZERO,
        noticed_at: notice::next_place(),
    };
    let record = &mut tracked.record;
    // SAFETY: the helper only reads a clock.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    record.opened_ns = now_ns;
    record.established_ns = now_ns;
    record.changed_ns = now_ns;
    record.state = TCP_ESTABLISHED;
    record.flags = SERVER_END;
    record.local_port = local_port;
    record.remote_port = remote_port;
    sock.describe(record);
    if SOCKETS
        .insert(sock.0, tracked, u64::from(BPF_NOEXIST))
        .is_ok()
    {
        // SAFETY: the record is on our own stack.
        unsafe { notice::began(sock, &raw const tracked.record, now_ns) };
    } else if counts {
        count(Counter::MapFull);
    }
}
