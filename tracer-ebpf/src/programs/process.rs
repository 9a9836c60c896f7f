//! process: an opener forks, calls exec, or ends; any process calls exec.
//!
//! A child that inherits sockets becomes known when its holders are next listed; these notices
//! only make that prompt, and tell userspace when what it knows of a process is stale.

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_boot_ns,
    macros::{btf_tracepoint, raw_tracepoint, tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext, TracePointContext},
};
use tracer_ebpf::abi::event::{EXEC, EXIT, FORK, PROGRAM, ProcessEvent};

use super::done;
use crate::{
    interpreter,
    maps::{header, notify},
    tally,
    task::Task,
};

#[btf_tracepoint(function = "sched_process_fork")]
pub(crate) fn fork_btf(ctx: BtfTracePointContext) -> i32 {
    done!(fork(Task::at(ctx.arg(0)), Task::at(ctx.arg(1))))
}

#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub(crate) fn fork_raw(ctx: RawTracePointContext) -> i32 {
    done!(fork(Task::at(ctx.arg(0)), Task::at(ctx.arg(1))))
}

#[btf_tracepoint(function = "sched_process_exec")]
pub(crate) fn exec_btf(ctx: BtfTracePointContext) -> i32 {
    done!(exec(Task::at(ctx.arg(0))))
}

#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub(crate) fn exec_raw(ctx: RawTracePointContext) -> i32 {
    done!(exec(Task::at(ctx.arg(0))))
}

#[btf_tracepoint(function = "sched_process_exit")]
pub(crate) fn exit_btf(ctx: BtfTracePointContext) -> i32 {
    done!(exit(Task::at(ctx.arg(0))))
}

#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub(crate) fn exit_raw(ctx: RawTracePointContext) -> i32 {
    done!(exit(Task::at(ctx.arg(0))))
}

/// Beside [`fork_btf`], where that can be preempted: perf's event does not have the child.
#[btf_tracepoint(function = "sched_process_fork")]
pub(crate) fn fork_beside_btf(ctx: BtfTracePointContext) -> i32 {
    done!(fork_beside(Task::at(ctx.arg(0)), Task::at(ctx.arg(1))))
}

/// As [`fork_beside_btf`].
#[btf_tracepoint(function = "sched_process_fork")]
pub(crate) fn fork_beside_last_btf(ctx: BtfTracePointContext) -> i32 {
    done!(fork_beside(Task::at(ctx.arg(0)), Task::at(ctx.arg(1))))
}

/// As [`exec_btf`], where that could be preempted; see [`crate::preempted`].
#[tracepoint]
pub(crate) fn exec_perf(_: TracePointContext) -> u32 {
    done!(exec(Task::current()))
}

/// As [`exit_btf`], where that could be preempted.
#[tracepoint]
pub(crate) fn exit_perf(_: TracePointContext) -> u32 {
    done!(exit(Task::current()))
}

#[inline(always)]
fn fork(parent: Task, child: Task) -> Option<()> {
    let parent_tgid = parent.tgid();
    // A new thread is no new holder: it shares its process's files.
    if child.tgid() == parent_tgid {
        return None;
    }
    interpreter::inherit(parent, parent_tgid, child);
    let parent_start_ns = parent.process_start_ns();
    if tally::is_followed(parent_tgid, parent_start_ns) {
        tally::follow(child.tgid(), child.process_start_ns());
    }
    if !tally::is_opener(parent_tgid, parent_start_ns) {
        return None;
    }
    send(FORK, child, parent_tgid, parent_start_ns);
    Some(())
}

/// What a fork must not go without, done once more: the child does not run yet. A notice only makes
/// the child's holding prompt.
#[inline(always)]
fn fork_beside(parent: Task, child: Task) -> Option<()> {
    let (parent_tgid, child_tgid) = (parent.tgid(), child.tgid());
    if child_tgid == parent_tgid {
        return None;
    }
    interpreter::inherit(parent, parent_tgid, child);
    let child_start_ns = child.process_start_ns();
    if tally::is_followed(parent_tgid, parent.process_start_ns())
        && !tally::is_followed(child_tgid, child_start_ns)
    {
        tally::follow(child_tgid, child_start_ns);
    }
    Some(())
}

#[inline(always)]
fn exit(task: Task) -> Option<()> {
    if !task.process_has_ended() {
        return None;
    }
    interpreter::forget(task.tgid());
    let told = report(EXIT, task);
    tally::forget_if_unused(task.tgid(), task.process_start_ns());
    told
}

/// Of every process: what it runs now may be an interpreter, whose frames userspace must find the
/// way to before the first connect.
#[inline(always)]
fn exec(task: Task) -> Option<()> {
    interpreter::forget(task.tgid());
    if report(EXEC, task).is_none() {
        send(PROGRAM, task, 0, 0);
    }
    Some(())
}

#[inline(always)]
fn report(kind: u32, task: Task) -> Option<()> {
    if !tally::is_opener(task.tgid(), task.process_start_ns()) {
        return None;
    }
    send(kind, task, 0, 0);
    Some(())
}

#[inline(always)]
fn send(kind: u32, task: Task, parent_tgid: u32, parent_start_ns: u64) {
    // SAFETY: the helper only reads a clock.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    notify(&ProcessEvent {
        header: header::<ProcessEvent>(kind, now_ns),
        start_ns: task.process_start_ns(),
        parent_start_ns,
        tgid: task.tgid(),
        parent_tgid,
        comm: task.comm(),
    });
}
