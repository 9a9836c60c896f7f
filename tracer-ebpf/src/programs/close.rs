//! close: the application lets go (`tcp_close`), and the kernel destroys (`tcp_destroy_sock`).
//!
//! The two are apart: a socket lingers in FIN_WAIT or LAST_ACK after the one, and a socket that
//! was reset stays in its process's hands, in CLOSE, until the one.

use core::mem::MaybeUninit;

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_boot_ns,
    macros::{btf_tracepoint, fentry, kprobe, raw_tracepoint, tracepoint},
    programs::{
        BtfTracePointContext, FEntryContext, ProbeContext, RawTracePointContext, TracePointContext,
    },
};
use tracer_ebpf::abi::{
    counters::Counter,
    socket::{ABANDONED, LET_GO, TrackedSocket},
};

use super::done;
use crate::{
    filter,
    globals::offset,
    maps::count,
    notice, preempted, record,
    running::{self, Turn, Twinned},
    sock::{Sock, SockArgument, SockFields},
    tally,
    task::Task,
};

#[fentry(function = "tcp_close")]
pub(crate) fn close_fentry(ctx: FEntryContext) -> i32 {
    // SAFETY: it is an argument of this fentry program.
    done!(release(unsafe { SockArgument::new(ctx.arg(0)) }))
}

#[kprobe]
pub(crate) fn close_kprobe(ctx: ProbeContext) -> u32 {
    done!(ctx.arg(0).and_then(|address| release(Sock(address))))
}

#[btf_tracepoint(function = "tcp_destroy_sock")]
pub(crate) fn destroy_btf(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: it is an argument of this tp_btf program.
    done!(destroy(unsafe { SockArgument::new(ctx.arg(0)) }))
}

#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
pub(crate) fn destroy_raw(ctx: RawTracePointContext) -> i32 {
    done!(destroy(Sock(ctx.arg(0))))
}

/// Beside the above; see [`running`].
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub(crate) fn destroy_again_btf(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: it is an argument of this tp_btf program.
    done!(destroy_again(unsafe { SockArgument::new(ctx.arg(0)) }))
}

/// As [`destroy_again_btf`].
#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
pub(crate) fn destroy_again_raw(ctx: RawTracePointContext) -> i32 {
    done!(destroy_again(Sock(ctx.arg(0))))
}

/// As [`destroy_btf`], where that could be preempted; see [`preempted`].
#[tracepoint]
pub(crate) fn destroy_perf(ctx: TracePointContext) -> u32 {
    done!(preempted::field(&ctx, offset!(event_destroy_sock)).and_then(|sock| remove(Sock(sock))))
}

/// Beside [`destroy_perf`].
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub(crate) fn destroy_beside_btf(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: it is an argument of this tp_btf program.
    let sock = unsafe { SockArgument::new(ctx.arg(0)) };
    done!(destroy_beside(sock, Turn::Twin))
}

/// Beside [`destroy_perf`].
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub(crate) fn destroy_beside_last_btf(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: it is an argument of this tp_btf program.
    let sock = unsafe { SockArgument::new(ctx.arg(0)) };
    done!(destroy_beside(sock, Turn::Last))
}

#[inline(always)]
fn release(sock: impl SockFields) -> Option<()> {
    filter::matched(sock)?;
    let tracked = record::of(sock.address())?;
    // SAFETY: the helper only reads a clock.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: the value's memory outlives the program's run, even if the entry is removed.
    unsafe {
        (*tracked).record.released_ns = now_ns;
        notice::changed(sock.address(), tracked, now_ns);
    }
    Some(())
}

#[inline(always)]
fn find(sock: impl SockFields) -> Option<*mut TrackedSocket> {
    // `connect(AF_UNSPEC)` zeroes the remote port (tcp_disconnect), and so does a connect that
    // finds no free local port (tcp_v4_connect): only a look-up tells then.
    if sock.ports()?.remote() != 0 {
        filter::watched(sock)?;
    }
    record::of(sock.address())
}

#[inline(always)]
fn destroy(sock: impl SockFields) -> Option<()> {
    running::during(Twinned::Destroy, |_| remove(sock))
}

#[inline(always)]
fn destroy_again(sock: impl SockFields) -> Option<()> {
    if !running::left_out(Twinned::Destroy) {
        return None;
    }
    remove(sock)
}

#[inline(always)]
fn destroy_beside(sock: impl SockFields, turn: Turn) -> Option<()> {
    if !preempted::end_left_out(sock, find(sock), turn) {
        return None;
    }
    remove(sock)
}

#[inline(always)]
fn remove(sock: impl SockFields) -> Option<()> {
    let Some(tracked) = find(sock) else {
        count(Counter::Passed);
        return None;
    };
    count(Counter::Matched);
    // SAFETY: the value's memory outlives the program's run, and nobody else ends it.
    let mut flags = unsafe { (*tracked).record.flags };
    // Without a FIN before it, close itself destroys: of a socket that was reset, has unread
    // bytes, or was never established.
    if flags & LET_GO == 0 && Task::current().is_exiting() {
        flags |= ABANDONED;
    }
    let mut copy = MaybeUninit::uninit();
    // SAFETY: it is the record at this address, whose socket ends here.
    unsafe {
        let ended = record::end(sock.address(), tracked, flags, &mut copy)?;
        if let Some(opener) = tally::opener(ended.remains, ended.flags) {
            tally::closed(opener);
        }
        notice::destroyed(sock.address(), &ended);
    }
    Some(())
}
