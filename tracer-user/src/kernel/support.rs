//! Support: what this kernel allows, found out by trying and then undone.

use std::{fs, path::PathBuf};

use aya::util::KernelVersion;

use super::{
    error::KernelError,
    iterators::Walk,
    load::{Kernel, Options},
    probes::{Family, Probes},
};
use crate::procfs;

/// Capabilities that tracing needs (include/uapi/linux/capability.h), CAP_SYS_ADMIN standing for
/// the first two.
const CAPABILITIES: [(&str, u32); 3] =
    [("CAP_SYS_PTRACE", 19), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];
const CAP_SYS_ADMIN: u32 = 21;

/// Capabilities that this process lacks, of those that tracing needs.
pub fn missing_capabilities() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = procfs::field(&status, "CapEff")
        .and_then(|mask| u64::from_str_radix(mask, 16).ok())
        .unwrap_or(0);
    let has = |bit: u32| effective & (1 << bit) != 0;
    CAPABILITIES
        .into_iter()
        .filter(|&(_, bit)| !has(bit) && (bit == 19 || !has(CAP_SYS_ADMIN)))
        .map(|(name, _)| name)
        .collect()
}

/// The lockdown mode in force: `none`, `integrity` or `confidentiality`; `None` without lockdown.
pub fn lockdown() -> Option<String> {
    let modes = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let (_, rest) = modes.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// Are the PIDs of /proc the ones that the kernel side sees? The first PID namespace has a fixed
/// inode (include/uapi/linux/nsfs.h and include/linux/proc_ns.h, PROC_PID_INIT_INO).
pub fn is_first_pid_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == "pid:[4026531836]")
}

/// `kernel.perf_event_paranoid`
pub fn perf_event_paranoid() -> Option<i32> {
    fs::read_to_string("/proc/sys/kernel/perf_event_paranoid")
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Since 7.0 tracepoints are read under SRCU, and their programs preempted (f7d327654b88).
pub fn preempts_tracepoints() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(7, 0, 0))
}

/// The limit of locked memory, bytes, which bounds maps before 5.11; `None` where unlimited.
pub fn memlock_bytes() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for writing.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Before 5.11 maps are charged to this limit, and its default holds none of ours
/// (d5299b67dd59, bpf: Memcg-based memory accounting).
pub(super) fn raise_memlock() {
    let unlimited = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: `unlimited` is a valid rlimit. Where it is refused, loading says what is missing.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
}

/// Attaches every hook for a moment.
///
/// # Errors
///
/// What tracing itself would fail with.
pub fn try_probes(family: Option<Family>, btf: Option<PathBuf>) -> Result<Probes, KernelError> {
    let options = Options {
        // No traffic of this host shall pass the filter meanwhile.
        ports: Vec::new(),
        family,
        btf,
        max_sockets: 1,
        ring_bytes: 1 << 17,
        ..Options::default()
    };
    Kernel::load(&options)?.attach()
}

/// Walks the open files once. The number of bytes it gave.
///
/// # Errors
///
/// What a snapshot would fail with.
pub fn try_walk(btf: Option<PathBuf>) -> Result<usize, KernelError> {
    let mut kernel = Kernel::load_to_look(&[], btf)?;
    Ok(kernel.walk(Walk::OpenFiles)?.len())
}
