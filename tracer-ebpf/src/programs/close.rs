//! close: the application lets go (`tcp_close`), and the kernel destroys (`tcp_destroy_sock`).
//!
//! The two are apart: a socket lingers in FIN_WAIT or LAST_ACK after the one, and a socket that
//! was reset stays in its process's hands, in CLOSE, until the one.

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_boot_ns,
    macros::{btf_tracepoint, fentry, kprobe, raw_tracepoint},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext, RawTracePointContext},
};
use tracer_ebpf::abi::{
    counters::Counter,
    socket::{ABANDONED, LET_GO, SocketRecord, TrackedSocket},
};

use super::done;
use crate::{
    filter,
    maps::{SOCKETS, copy_record, count},
    notice,
    sock::{Ports, Sock},
    tally,
    task::Task,
};

#[fentry(function = "tcp_close")]
pub(crate) fn close_fentry(ctx: FEntryContext) -> i32 {
    let sock = Sock(ctx.arg(0));
    // SAFETY: it is an argument of this fentry program.
    let ports = unsafe { sock.ports_of_argument() };
    done!(release(sock, ports))
}

#[kprobe]
pub(crate) fn close_kprobe(ctx: ProbeContext) -> u32 {
    done!(
        ctx.arg(0)
            .map(Sock)
            .and_then(|sock| release(sock, sock.ports()?))
    )
}

#[btf_tracepoint(function = "tcp_destroy_sock")]
pub(crate) fn destroy_btf(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock(ctx.arg(0));
    // SAFETY: it is an argument of this tp_btf program.
    let ports = unsafe { sock.ports_of_argument() };
    done!(destroy(sock, ports))
}

#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
pub(crate) fn destroy_raw(ctx: RawTracePointContext) -> i32 {
    let sock = Sock(ctx.arg(0));
    done!(sock.ports().and_then(|ports| destroy(sock, ports)))
}

/// Beside the above, for what it misses: `release_sock` works off a socket's backlog with softirqs
/// enabled (5413d1babe8f, 4.7), so that one of them can end another socket while the program runs
/// on the same CPU, and the kernel leaves a program out that runs there already (6.1,
/// 05b24ff9b2cf). And for what it fails at: since 6.15 a bucket's lock can be refused
/// (`rqspinlock`). A record would be left over.
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub(crate) fn destroy_again_btf(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock(ctx.arg(0));
    // SAFETY: it is an argument of this tp_btf program.
    let ports = unsafe { sock.ports_of_argument() };
    done!(remove(sock, ports))
}

/// As [`destroy_again_btf`].
#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
pub(crate) fn destroy_again_raw(ctx: RawTracePointContext) -> i32 {
    let sock = Sock(ctx.arg(0));
    done!(sock.ports().and_then(|ports| remove(sock, ports)))
}

#[inline(always)]
fn release(sock: Sock, ports: Ports) -> Option<()> {
    filter::matched(sock, ports)?;
    let tracked = SOCKETS.get_ptr_mut(sock.0)?;
    // SAFETY: the helper only reads a clock.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: the value's memory outlives the program's run, even if the entry is removed.
    unsafe {
        (*tracked).record.released_ns = now_ns;
        notice::changed(sock, tracked, now_ns);
    }
    Some(())
}

#[inline(always)]
fn destroy(sock: Sock, ports: Ports) -> Option<()> {
    count(Counter::Seen);
    remove(sock, ports)?;
    count(Counter::Matched);
    Some(())
}

#[inline(always)]
fn remove(sock: Sock, ports: Ports) -> Option<()> {
    // `connect(AF_UNSPEC)` zeroes the remote port (tcp_disconnect), and so does a connect that
    // finds no free local port (tcp_v4_connect): only a look-up tells then.
    if ports.remote() != 0 && filter::watched(sock, ports).is_none() {
        return None;
    }
    let found = SOCKETS.get_ptr(sock.0)?;
    let mut tracked = TrackedSocket {
        record: SocketRecord::ZERO,
        noticed_at: 0,
    };
    // SAFETY: the value's memory outlives the program's run, and nobody else removes it.
    unsafe {
        copy_record(&raw mut tracked.record, &raw const (*found).record);
        tracked.noticed_at = (*found).noticed_at;
    }
    // Without a FIN before it, close itself destroys: of a socket that was reset, has unread
    // bytes, or was never established.
    if tracked.record.flags & LET_GO == 0 && Task::current().is_exiting() {
        tracked.record.flags |= ABANDONED;
    }
    // SAFETY: the helper only reads a clock.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    SOCKETS.remove(sock.0).ok()?;
    tally::closed(&tracked.record);
    notice::destroyed(sock, &tracked, now_ns);
    Some(())
}
