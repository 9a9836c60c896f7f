//! connect: `tcp_connect` runs once for every connection that this host opens, in the caller.
//!
//! The state hook has begun the record at SYN_SENT, a moment before; here it is told of, with its
//! stack and the local port that is chosen by now. Without these programs the state hook does
//! both. Unlike the system call's entry, both see io_uring and TCP fast open.

use aya_ebpf::{
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};

use super::done;
use crate::{
    filter, opening, preempted, record,
    sock::{Sock, SockArgument, SockFields},
};

#[fentry(function = "tcp_connect")]
pub(crate) fn connect_fentry(ctx: FEntryContext) -> i32 {
    // SAFETY: it is an argument of this fentry program.
    done!(connect(unsafe { SockArgument::new(ctx.arg(0)) }))
}

#[kprobe]
pub(crate) fn connect_kprobe(ctx: ProbeContext) -> u32 {
    done!(ctx.arg(0).and_then(|address| connect(Sock(address))))
}

/// Beside [`connect_fentry`], where that can be preempted; see [`preempted`].
#[fentry(function = "tcp_connect")]
pub(crate) fn connect_beside_fentry(ctx: FEntryContext) -> i32 {
    // SAFETY: it is an argument of this fentry program.
    done!(connect_beside(unsafe { SockArgument::new(ctx.arg(0)) }))
}

/// As [`connect_beside_fentry`].
#[fentry(function = "tcp_connect")]
pub(crate) fn connect_beside_last_fentry(ctx: FEntryContext) -> i32 {
    // SAFETY: it is an argument of this fentry program.
    done!(connect_beside(unsafe { SockArgument::new(ctx.arg(0)) }))
}

#[inline(always)]
fn connect_beside(sock: impl SockFields) -> Option<()> {
    filter::watched(sock)?;
    connect(sock)
}

#[inline(always)]
fn connect(sock: impl SockFields) -> Option<()> {
    if preempted::is_told(sock) {
        return None;
    }
    let matched = filter::matched(sock)?;
    // None: the map was full, which is counted, or tracing starts just now, and the walk over the
    // open files finds the socket.
    let tracked = record::of(sock.address())?;
    // SAFETY: the value's memory outlives the program's run, and the socket's lock keeps its other
    // hooks away.
    unsafe {
        let record = &raw mut (*tracked).record;
        (*record).local_port = matched.local_port;
        (*record).local_addr = sock.local_address((*record).family);
        opening::tell(sock.address(), tracked);
    }
    Some(())
}
