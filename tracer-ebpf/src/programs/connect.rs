//! connect: `tcp_connect` runs once for every connection that this host opens, in the caller.
//!
//! Without these, SYN_SENT in the state hook stands for it. Unlike the system call's entry,
//! `tcp_connect` also sees io_uring and TCP fast open.

use aya_ebpf::{
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};

use super::done;
use crate::{
    filter, opening,
    sock::{Ports, Sock},
};

#[fentry(function = "tcp_connect")]
pub(crate) fn connect_fentry(ctx: FEntryContext) -> i32 {
    let sock = Sock(ctx.arg(0));
    // SAFETY: it is an argument of this fentry program.
    let ports = unsafe { sock.ports_of_argument() };
    done!(connect(sock, ports))
}

#[kprobe]
pub(crate) fn connect_kprobe(ctx: ProbeContext) -> u32 {
    done!(
        ctx.arg(0)
            .map(Sock)
            .and_then(|sock| connect(sock, sock.ports()?))
    )
}

#[inline(always)]
fn connect(sock: Sock, ports: Ports) -> Option<()> {
    let matched = filter::matched(sock, ports)?;
    opening::record(sock, matched)
}
