//! A miss: a run of a program that the kernel left out, because a program was busy on that CPU.
//!
//! fentry programs do not run twice at a time on one CPU, nor do tracepoint's; kprobe programs do
//! not run while a map is read or changed there (`bpf_prog_active`). The kernel counts each miss
//! since 5.12, of kprobes since 6.7; before, they are not known. Nor is what a sandbox's kernel
//! leaves out while PID 1 is the current task (6.18.44-fc, seen in its `bpf_trace_run3`).

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
};

use aya::Ebpf;

/// Runs of `program` that were left out, 0 where the kernel does not tell.
pub(super) fn of(ebpf: &Ebpf, program: &str) -> u64 {
    let Some(Ok(fd)) = ebpf.program(program).map(|program| program.fd()) else {
        return 0;
    };
    let fd = fd.as_fd().as_raw_fd();
    let told = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    told.lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))
        .and_then(|misses| misses.trim().parse().ok())
        .unwrap_or(0)
}
