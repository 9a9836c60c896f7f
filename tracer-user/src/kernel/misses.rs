//! A miss: a run of a program that the kernel left out, because a program was busy on that CPU.
//!
//! fentry programs do not run twice at a time on one CPU, nor do tracepoint's; kprobe programs, and
//! those of perf's tracepoints, do not run while a map is read or changed there, or another one of
//! them runs (`bpf_prog_active`). The kernel counts each miss since 5.12, of the latter two since
//! 6.7; before, they are not known. Nor is what a sandbox's kernel leaves out while PID 1 is the
//! current task (6.18.44-fc, seen in its `bpf_trace_run3`).
//!
//! A miss that a twin made good is no loss. Of a twin that asks who is running, each miss is made
//! good that is not its own. Of two that ask what the record lacks (`preempted` of the kernel side),
//! none is told whose event is of no watched port or of no record, so that more seem lost than are:
//! but what is lost, both twins missed too, and they count that.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
};

use aya::Ebpf;

use super::probes::Probes;
use crate::procfs;

/// Misses of all programs, twins not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Misses {
    runs: u64,
    /// Of these, the ones that no twin can have made good.
    lost_at_most: u64,
}

impl Misses {
    /// Runs that nobody made good, of which twins say to have made good `caught_up`, asked after
    /// the misses. Never less than there are, but for those of this very moment.
    pub fn lost(self, caught_up: u64) -> u64 {
        self.runs.saturating_sub(caught_up).min(self.lost_at_most)
    }
}

pub(super) fn of(ebpf: &Ebpf, probes: &Probes) -> Misses {
    let mut misses = Misses::default();
    for &(program, twins) in &probes.mains {
        let runs = of_program(ebpf, program);
        misses.runs += runs;
        misses.lost_at_most += match twins {
            [(first, _), (last, _)] => runs
                .min(of_program(ebpf, first))
                .min(of_program(ebpf, last)),
            _ => runs,
        };
    }
    misses
}

/// Runs of `program` that were left out, 0 where the kernel does not tell.
fn of_program(ebpf: &Ebpf, program: &str) -> u64 {
    let Some(Ok(fd)) = ebpf.program(program).map(|program| program.fd()) else {
        return 0;
    };
    let fd = fd.as_fd().as_raw_fd();
    let told = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    procfs::field(&told, "recursion_misses")
        .and_then(|misses| misses.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::Misses;

    #[test]
    fn what_twins_made_good_is_not_lost_nor_what_they_did_not_miss() {
        let misses = Misses {
            runs: 10,
            lost_at_most: 3,
        };
        assert_eq!(misses.lost(10), 0);
        assert_eq!(misses.lost(8), 2);
        assert_eq!(misses.lost(0), 3);
        // A twin may be read just after it made good what was not read as missed yet.
        assert_eq!(misses.lost(11), 0);
    }
}
