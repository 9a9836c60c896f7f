//! ask: userspace has one entry of a map read or removed, without the system call for it.
//!
//! That call raises `bpf_prog_active` on its CPU, and can be preempted: meanwhile every program of
//! perf's tracepoints is left out there. This one hangs nowhere. Userspace runs it
//! (BPF_PROG_TEST_RUN, raw_tp since 5.10), with preemption off and nothing raised
//! (net/bpf/test_run.c, `bpf_prog_test_run_raw_tp`).

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use tracer_ebpf::abi::ask::{Answer, FORGET_OPENER, FORGET_SOCKET, OPENER, SOCKET};

use super::done;
use crate::{
    maps::{ANSWER, OPENERS, SOCKETS},
    record, tally,
};

#[raw_tracepoint]
pub(crate) fn ask(ctx: RawTracePointContext) -> i32 {
    done!(answer(ctx.arg(0), ctx.arg(1), ctx.arg(2)))
}

#[inline(always)]
fn answer(question: u64, first: u64, second: u64) -> Option<()> {
    let answer = ANSWER.get_ptr_mut(0)?;
    // SAFETY: a value of the map, which outlives the program's run; userspace waits for its end.
    unsafe {
        (*answer).is_there = 0;
        find(answer, question, first, second)?;
        (*answer).is_there = 1;
    }
    Some(())
}

/// # Safety
///
/// `answer` is a value of `ANSWER`.
#[inline(always)]
unsafe fn find(answer: *mut Answer, question: u64, first: u64, second: u64) -> Option<()> {
    match question {
        SOCKET => {
            let tracked = record::of(first)?;
            // SAFETY: values of maps, which outlive the program's run. The record may change while
            // it is copied, as it may under the system call; whoever changes it tells.
            unsafe {
                record::copy(
                    &raw mut (*answer).tracked.record,
                    &raw const (*tracked).record,
                );
            }
        }
        OPENER => {
            let counts = OPENERS.get_ptr(tally::key(second as u32, first))?;
            // SAFETY: as above; the counts only grow.
            unsafe { (*answer).counts = *counts };
        }
        FORGET_SOCKET => SOCKETS.remove(first).ok()?,
        FORGET_OPENER => OPENERS.remove(tally::key(second as u32, first)).ok()?,
        _ => return None,
    }
    Some(())
}
