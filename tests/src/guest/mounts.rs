//! The filesystems and the loopback device that tests expect of a running system.

use std::ffi::CString;
use std::io;

use anyhow::{Context, Result};

struct Mount {
    kind: &'static str,
    at: &'static str,
    /// Without these nothing can run; the others only narrow what can be tested.
    essential: bool,
}

const MOUNTS: [Mount; 12] = [
    essential("proc", "/proc"),
    essential("sysfs", "/sys"),
    essential("devtmpfs", "/dev"),
    optional("devpts", "/dev/pts"),
    optional("tmpfs", "/dev/shm"),
    essential("tmpfs", "/tmp"),
    essential("tmpfs", "/run"),
    optional("debugfs", "/sys/kernel/debug"),
    optional("tracefs", "/sys/kernel/tracing"),
    optional("securityfs", "/sys/kernel/security"),
    optional("bpf", "/sys/fs/bpf"),
    optional("cgroup2", "/sys/fs/cgroup"),
];

const fn essential(kind: &'static str, at: &'static str) -> Mount {
    Mount {
        kind,
        at,
        essential: true,
    }
}

const fn optional(kind: &'static str, at: &'static str) -> Mount {
    Mount {
        kind,
        at,
        essential: false,
    }
}

/// Mounts everything; returns a line for each filesystem this kernel does not have.
pub(super) fn mount_all() -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for Mount {
        kind,
        at,
        essential,
    } in MOUNTS
    {
        // Below /sys the kernel makes the directory itself and refuses ours.
        let outcome = std::fs::create_dir_all(at).and_then(|()| mount(kind, at));
        match outcome {
            Ok(()) => {}
            Err(e) if essential => {
                return Err(e).with_context(|| format!("failed to mount {kind} on {at}"));
            }
            Err(e) => missing.push(format!("failed to mount {kind} on {at}: {e}")),
        }
    }
    Ok(missing)
}

fn mount(kind: &str, at: &str) -> io::Result<()> {
    let (kind, at) = (CString::new(kind)?, CString::new(at)?);
    // SAFETY: both are NUL-terminated and outlive the call; no options are passed.
    let rc = unsafe {
        libc::mount(
            kind.as_ptr(),
            at.as_ptr(),
            kind.as_ptr(),
            0,
            std::ptr::null(),
        )
    };
    if rc == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // devtmpfs may have been mounted by the kernel.
        e if e.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        e => Err(e),
    }
}

/// The machine has no other network device, so the tests' servers live here.
pub(super) fn bring_loopback_up() -> io::Result<()> {
    // SAFETY: plain system call, the result is checked.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: ifreq is plain old data, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads name and flags of the ifreq it is given.
    let rc = unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &request) };
    let outcome = if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    };
    // SAFETY: the descriptor was opened above and is used nowhere else.
    unsafe { libc::close(socket) };
    outcome
}

/// What a service manager would have given its services; the kernel's own default of 1,024 is the soft limit.
pub(super) fn raise_file_limit() -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: 65_536,
        rlim_max: 524_288,
    };
    // SAFETY: reads one rlimit.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
