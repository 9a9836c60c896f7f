//! state: a socket moves through TCP's states, as often in softirq as in its process.
//!
//! Never read the process here, except at SYN_SENT, which connect alone sets.

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_boot_ns,
    macros::{btf_tracepoint, raw_tracepoint, tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext, TracePointContext},
};
use tracer_ebpf::abi::{
    counters::Counter,
    socket::{ABANDONED, LET_GO, SERVER_END},
};

use super::done;
use crate::{
    filter::{self, Match},
    globals::offset,
    maps::count,
    notice, opening, preempted, record,
    running::{self, Turn, Twinned},
    sock::{
        Sock, SockArgument, SockFields, TCP_CLOSE, TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2,
        TCP_LAST_ACK, TCP_LISTEN, TCP_SYN_SENT,
    },
    task::Task,
};

/// A program on the tracepoint, carried by tp_btf: the verifier knows the socket.
macro_rules! by_tp_btf {
    ($name:ident: $work:expr) => {
        #[btf_tracepoint(function = "inet_sock_set_state")]
        pub(crate) fn $name(ctx: BtfTracePointContext) -> i32 {
            // SAFETY: it is an argument of this tp_btf program.
            let sock = unsafe { SockArgument::new(ctx.arg(0)) };
            done!($work(sock, ctx.arg(1), ctx.arg(2)))
        }
    };
}

/// The same by raw_tp, where helpers read the socket.
macro_rules! by_raw_tp {
    ($name:ident: $work:expr) => {
        #[raw_tracepoint(tracepoint = "inet_sock_set_state")]
        pub(crate) fn $name(ctx: RawTracePointContext) -> i32 {
            done!($work(Sock(ctx.arg(0)), ctx.arg(1), ctx.arg(2)))
        }
    };
}

// Where `tcp_connect` is hooked: SYN_SENT begins the record, connect tells of it.
by_tp_btf!(state_btf: state::<false>);
by_raw_tp!(state_raw: state::<false>);

// Where `tcp_connect` cannot be hooked: SYN_SENT stands for it.
by_tp_btf!(state_connect_btf: state::<true>);
by_raw_tp!(state_connect_raw: state::<true>);

// Their twins; see [`running`].
by_tp_btf!(state_again_btf: state_again::<false>);
by_raw_tp!(state_again_raw: state_again::<false>);
by_tp_btf!(state_connect_again_btf: state_again::<true>);
by_raw_tp!(state_connect_again_raw: state_again::<true>);

/// As [`state_btf`], where that could be preempted; see [`preempted`].
#[tracepoint]
pub(crate) fn state_perf(ctx: TracePointContext) -> u32 {
    done!(state_of_perf::<false>(&ctx))
}

/// As [`state_connect_btf`], where that could be preempted.
#[tracepoint]
pub(crate) fn state_connect_perf(ctx: TracePointContext) -> u32 {
    done!(state_of_perf::<true>(&ctx))
}

// Their twins, two each.
by_tp_btf!(state_beside_btf: beside_twin::<false>);
by_tp_btf!(state_beside_last_btf: beside_last::<false>);
by_tp_btf!(state_connect_beside_btf: beside_twin::<true>);
by_tp_btf!(state_connect_beside_last_btf: beside_last::<true>);

#[inline(always)]
fn state_of_perf<const TELLS: bool>(ctx: &TracePointContext) -> Option<()> {
    let sock = Sock(preempted::field(ctx, offset!(event_state_sock))?);
    let old = preempted::field(ctx, offset!(event_state_old))?;
    let new = preempted::field(ctx, offset!(event_state_new))?;
    change::<TELLS>(sock, old, new, Turn::Program)
}

#[inline(always)]
fn beside_twin<const TELLS: bool>(sock: impl SockFields, old: i32, new: i32) -> Option<()> {
    beside::<TELLS>(sock, old, new, Turn::Twin)
}

#[inline(always)]
fn beside_last<const TELLS: bool>(sock: impl SockFields, old: i32, new: i32) -> Option<()> {
    beside::<TELLS>(sock, old, new, Turn::Last)
}

#[inline(always)]
fn beside<const TELLS: bool>(sock: impl SockFields, old: i32, new: i32, turn: Turn) -> Option<()> {
    if of_listener(old as u8, new as u8) || is_left_to_destroy(sock, new as u8) {
        return None;
    }
    let matched = filter::watched(sock)?;
    if !preempted::change_left_out(sock, matched, new as u8, turn) {
        return None;
    }
    change::<TELLS>(sock, old, new, turn)
}

#[inline(always)]
fn state<const TELLS: bool>(sock: impl SockFields, old: i32, new: i32) -> Option<()> {
    running::during(Twinned::State, |turn| change::<TELLS>(sock, old, new, turn))
}

#[inline(always)]
fn state_again<const TELLS: bool>(sock: impl SockFields, old: i32, new: i32) -> Option<()> {
    if !running::left_out(Twinned::State) {
        return None;
    }
    change::<TELLS>(sock, old, new, Turn::Twin)
}

#[inline(always)]
fn change<const TELLS: bool>(sock: impl SockFields, old: i32, new: i32, turn: Turn) -> Option<()> {
    let (old, new) = (old as u8, new as u8);
    if of_listener(old, new) {
        count(Counter::Passed);
        return None;
    }
    if is_left_to_destroy(sock, new) {
        return None;
    }
    let matched = filter::matched(sock)?;
    if new == TCP_SYN_SENT {
        open::<TELLS>(sock, matched, turn)
    } else {
        follow(sock, matched, new, turn)
    }
}

/// A listener, or the child that was just copied from it (SYN_RECV): neither has a record.
#[inline(always)]
fn of_listener(old: u8, new: u8) -> bool {
    old == TCP_LISTEN || new == TCP_LISTEN
}

/// What no process has is destroyed at once, and the destroy hook sees it: in CLOSE (net/ipv4/tcp.c,
/// tcp_done and __tcp_close), and in FIN_WAIT2 (net/ipv4/tcp_input.c, tcp_rcv_state_process), of
/// which a TIME_WAIT is left. Unless it may be in FIN_WAIT2 for longer than in TIME_WAIT, by
/// `tcp_fin_timeout` or TCP_LINGER2: then the next walk says so.
#[inline(always)]
fn is_left_to_destroy(sock: impl SockFields, new: u8) -> bool {
    (new == TCP_CLOSE || new == TCP_FIN_WAIT2) && sock.is_dead()
}

#[inline(always)]
fn open<const TELLS: bool>(sock: impl SockFields, matched: Match, turn: Turn) -> Option<()> {
    // The tracepoint also serves SCTP, whose sockets have other fields, and MPTCP, whose subflows
    // are the TCP sockets.
    if !sock.is_tcp() {
        return None;
    }
    opening::begin::<TELLS>(sock, matched, turn)
}

#[inline(always)]
fn follow(sock: impl SockFields, matched: Match, new: u8, turn: Turn) -> Option<()> {
    let begins = new == TCP_ESTABLISHED && matched.server_end;
    // A new connection, that nobody has accepted yet, has no record worth looking for: that would be
    // to wait for the memory of one that another CPU ended.
    if begins && !sock.is_anyones() {
        return begin_server_end(sock, matched, turn);
    }
    let Some(tracked) = record::of(sock.address()) else {
        // The server end of a new connection. Any other state without a record belongs to a
        // socket older than tracing, which the iterator adds.
        if !begins {
            return None;
        }
        return begin_server_end(sock, matched, turn);
    };
    // SAFETY: the helper only reads a clock.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: the value's memory outlives the program's run, even if the entry is removed.
    unsafe {
        let record = &raw mut (*tracked).record;
        (*record).state = new;
        (*record).changed_ns = now_ns;
        if new == TCP_ESTABLISHED {
            // The local port and address are chosen after SYN_SENT.
            (*record).established_ns = now_ns;
            (*record).local_port = matched.local_port;
            (*record).local_addr = sock.local_address((*record).family);
        }
        // Only close and shutdown lead here (net/ipv4/tcp.c, tcp_close_state), in the process
        // that calls them.
        if new == TCP_FIN_WAIT1 || new == TCP_LAST_ACK {
            (*record).flags |= LET_GO;
            if Task::current().is_exiting() {
                (*record).flags |= ABANDONED;
            }
        }
        notice::changed(sock.address(), tracked, now_ns);
    }
    Some(())
}

/// No process is known here: accept says it, or the holder of the listener.
#[inline(always)]
fn begin_server_end(sock: impl SockFields, matched: Match, turn: Turn) -> Option<()> {
    if !sock.is_tcp() {
        return None;
    }
    let draft = record::draft(turn)?;
    // SAFETY: the helper only reads a clock.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: a draft is ours until we end.
    let record = unsafe { &mut (*draft).record };
    record.opened_ns = now_ns;
    record.established_ns = now_ns;
    record.changed_ns = now_ns;
    record.state = TCP_ESTABLISHED;
    record.flags = SERVER_END;
    record.local_port = matched.local_port;
    record.remote_port = matched.remote_port;
    sock.describe(record);
    // SAFETY: as above.
    let is_entered = unsafe {
        (*draft).noticed_at = notice::next_place();
        record::enter(sock.address(), draft)
    };
    // SAFETY: as above.
    if is_entered && !notice::began(sock.address(), unsafe { &(*draft).record }) {
        let tracked = record::of(sock.address())?;
        // SAFETY: a value of the map, which outlives the program's run.
        unsafe { (*tracked).noticed_at = 0 };
    }
    Some(())
}
