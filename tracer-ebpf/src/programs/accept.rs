//! accept: the process that takes a new connection from its listener holds the server end.

use super::done;
use crate::{
    filter, notice, record,
    sock::{Sock, SockFields},
    task::{Task, claim},
};
use aya_ebpf::{
    helpers::generated::bpf_ktime_get_boot_ns,
    macros::{fexit, kretprobe},
    programs::{FExitContext, RetProbeContext},
};

/// `inet_csk_accept(sk, flags, err, kern)`, up to 6.9: the result follows four arguments.
#[fexit(function = "inet_csk_accept")]
pub(crate) fn accept_fexit_4(ctx: FExitContext) -> i32 {
    done!(accept(Sock(ctx.arg(4))))
}

/// `inet_csk_accept(sk, arg)`, since 6.10 (92ef0fd55ac8): the result follows two.
#[fexit(function = "inet_csk_accept")]
pub(crate) fn accept_fexit_2(ctx: FExitContext) -> i32 {
    done!(accept(Sock(ctx.arg(2))))
}

#[kretprobe]
pub(crate) fn accept_kretprobe(ctx: RetProbeContext) -> u32 {
    done!(accept(Sock(ctx.ret())))
}

#[inline(always)]
fn accept(sock: Sock) -> Option<()> {
    if sock.0 == 0 {
        return None;
    }
    filter::matched(sock)?;
    let tracked = record::of(sock.address())?;
    // SAFETY: the helper only reads a clock.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: the value's memory outlives the program's run. It cannot be destroyed before this
    // hook returns: accept has not yet given its file to anyone.
    unsafe {
        let record = &mut (*tracked).record;
        record.flags |= claim(record, Task::current());
        notice::changed(sock.address(), tracked, now_ns);
    }
    Some(())
}
