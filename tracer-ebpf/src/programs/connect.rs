//! connect: `tcp_connect` runs once for every connection that this host opens, in the caller.
//!
//! Without these, SYN_SENT in the state hook stands for it. Unlike the system call's entry,
//! `tcp_connect` also sees io_uring and TCP fast open.

use aya_ebpf::{
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};

use super::done;
use crate::{filter, opening, sock::Sock};

#[fentry(function = "tcp_connect")]
pub(crate) fn connect_fentry(ctx: FEntryContext) -> i32 {
    done!(connect(Sock(ctx.arg(0))))
}

#[kprobe]
pub(crate) fn connect_kprobe(ctx: ProbeContext) -> u32 {
    done!(ctx.arg(0).and_then(|sock| connect(Sock(sock))))
}

#[inline(always)]
fn connect(sock: Sock) -> Option<()> {
    let matched = filter::matched(sock)?;
    opening::record(sock, matched)
}
