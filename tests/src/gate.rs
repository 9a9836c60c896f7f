//! Where a test cannot run, and the reason that is written down for it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// What a test needs of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Root, only.
    Root,
    /// Root, BPF and the family that `CONNLEAK_PROBES` forces.
    Bpf,
}

/// Whether the test may run; where not, its name and the reason go to `CONNLEAK_SKIPS` and stderr.
///
/// Reasons that lie in the host's kernel begin with "kernel of the host": CI accepts only those.
#[must_use]
pub fn open(test: &str, need: Need) -> bool {
    match missing(need) {
        None => true,
        Some(reason) => {
            skip(test, &reason);
            false
        }
    }
}

/// Records that `test` is skipped.
pub fn skip(test: &str, reason: &str) {
    // libtest captures eprintln!, and a skip must be seen when the test "passes".
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
    if let Some(file) = std::env::var_os("CONNLEAK_SKIPS") {
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&file)
            .and_then(|mut f| f.write_all(format!("{test}: {reason}\n").as_bytes()));
        if let Err(error) = written {
            let _ = writeln!(
                std::io::stderr(),
                "failed to write the skip to {file:?}: {error}"
            );
        }
    }
}

/// The forced probe family: `CONNLEAK_PROBES`, "auto" where it is unset.
#[must_use]
pub fn family() -> String {
    std::env::var("CONNLEAK_PROBES").unwrap_or_else(|_| "auto".into())
}

/// Whether this kernel was built with kprobes (and with the function tracer fentry rests on: every
/// kernel of the matrix has both or neither).
#[must_use]
pub fn kernel_has_kprobes() -> bool {
    Path::new("/sys/bus/event_source/devices/kprobe").exists()
}

/// Major and minor version of the running kernel.
#[must_use]
pub fn kernel_version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(['.', '-'])
        .map(|n| n.trim().parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn missing(need: Need) -> Option<String> {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return Some("needs root".into());
    }
    if need == Need::Root {
        return None;
    }
    if let Err(error) = crate::kernel_ids::Kind::Program.first_after(0) {
        return Some(format!("bpf(2) is refused: {error}"));
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("kernel of the host has no /sys/kernel/btf/vmlinux".into());
    }
    let family = family();
    if matches!(family.as_str(), "fentry" | "kprobe") && !kernel_has_kprobes() {
        return Some(format!("kernel of the host refuses {family}"));
    }
    None
}
