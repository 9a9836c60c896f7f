//! What the daemon may take of its machine, and what it takes.

use std::collections::HashMap;
use std::fs;

use super::status::UsageStatus;
use crate::clock;
use crate::config::Limits;
use crate::memory;
use crate::pipeline::Tracer;
use crate::procfs;

const OWN_DESCRIPTORS: &str = "/proc/self/fdinfo";

/// Hands a tracer what it may do, of what can change while it runs.
pub(super) fn allow(tracer: &Tracer, limits: &Limits) {
    tracer.allow_background_cpu(limits.background_cpu_percent);
    tracer.allow_java_perfmap(limits.java_perfmap);
}

/// The CPU time at the last two heartbeats: what was long ago says little of now.
pub(super) struct Usage {
    before: Look,
    last: Look,
}

#[derive(Clone, Copy)]
struct Look {
    at_ns: u64,
    cpu_ns: u64,
}

impl Look {
    fn now() -> Self {
        Self {
            at_ns: clock::monotonic_ns(),
            cpu_ns: clock::process_cpu_ns(),
        }
    }
}

impl Usage {
    /// From here on: what it took to start says nothing of what it takes.
    pub(super) fn new() -> Self {
        let now = Look::now();
        Self {
            before: now,
            last: now,
        }
    }

    pub(super) fn heartbeat(&mut self) {
        self.before = std::mem::replace(&mut self.last, Look::now());
    }

    pub(super) fn status(&self, tracer: &Tracer, limits: &Limits) -> UsageStatus {
        let now = Look::now();
        let window_ns = now.at_ns.saturating_sub(self.before.at_ns).max(1);
        let spent_ns = now.cpu_ns.saturating_sub(self.before.cpu_ns);
        UsageStatus {
            cpu_s: now.cpu_ns as f64 / 1e9,
            cpu_percent: 100.0 * spent_ns as f64 / window_ns as f64,
            cpu_window_s: window_ns as f64 / 1e9,
            background_cpu_percent_max: limits.background_cpu_percent,
            resident_bytes: memory::resident_bytes(),
            kernel_bytes: kernel_bytes(),
            sockets: tracer.tracked_sockets() as u64,
            sockets_max: limits.max_sockets,
        }
    }
}

/// What the kernel says it has locked in memory for the maps and programs whose descriptors we hold
/// (kernel/bpf/syscall.c, `bpf_map_show_fdinfo` and `bpf_prog_show_fdinfo`). Between 5.11 and 6.3 it
/// reckons with keys and values alone, which leaves out the ring; what is compiled it never counts.
fn kernel_bytes() -> Option<u64> {
    let mut held = HashMap::new();
    for entry in fs::read_dir(OWN_DESCRIPTORS).ok()?.flatten() {
        // The descriptor of this very listing is gone by now.
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        held.extend(locked(&text));
    }
    Some(held.into_values().sum())
}

/// Of one descriptor: whose it is, as two descriptors may be of one map, and the bytes.
fn locked(fdinfo: &str) -> Option<(String, u64)> {
    let bytes = procfs::field(fdinfo, "memlock")?.parse().ok()?;
    let whose = ["map_id", "prog_id"]
        .iter()
        .find_map(|name| Some(format!("{name} {}", procfs::field(fdinfo, name)?)))?;
    Some((whose, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_and_programs_are_told_apart_and_files_are_nobodys() {
        let map =
            "pos:\t0\nflags:\t02000002\nmap_type:\t1\nmemlock:\t4096\nmap_id:\t7\nfrozen:\t0\n";
        assert_eq!(locked(map), Some(("map_id 7".to_owned(), 4096)));
        let program = "prog_type:\t26\nprog_jited:\t1\nmemlock:\t8192\nprog_id:\t7\n";
        assert_eq!(locked(program), Some(("prog_id 7".to_owned(), 8192)));
        assert_eq!(locked("pos:\t0\nflags:\t0100002\nmnt_id:\t9\n"), None);
    }

    #[test]
    fn heartbeats_leave_what_is_long_ago() {
        let mut usage = Usage::new();
        let start_ns = usage.before.at_ns;
        usage.heartbeat();
        assert_eq!(usage.before.at_ns, start_ns);
        usage.heartbeat();
        assert!(usage.before.at_ns > start_ns);
    }
}
