//! A JVM asked to write down what it has compiled.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::procfs;

/// A JVM that stands still does not hold up the stacks of others for longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// `jcmd PID Compiler.perfmap`, JDK 17 and later, as the target's user: the JVM believes no other.
/// What came of it shows in the file. jcmd signals with SIGQUIT, which ends a JVM that is not up yet,
/// or was started with `-Xrs`: it is asked only if it catches that.
pub(in super::super) fn write_perf_map(process_dir: &Path, pid: u32) {
    let Ok(target) = fs::metadata(process_dir) else {
        return;
    };
    let status = fs::read(process_dir.join("status")).unwrap_or_default();
    if !catches_quit(&String::from_utf8_lossy(&status)) {
        return;
    }
    let mut jcmd = Command::new("jcmd");
    jcmd.args([&pid.to_string(), "Compiler.perfmap"])
        .uid(target.uid())
        .gid(target.gid())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(mut child) = jcmd.spawn() else {
        return;
    };
    let began = Instant::now();
    while let Ok(None) = child.try_wait() {
        if began.elapsed() > ANSWER_WITHIN {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        thread::sleep(POLL);
    }
}

/// By /proc/PID/status.
fn catches_quit(status: &str) -> bool {
    let caught =
        procfs::field(status, "SigCgt").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    caught.is_some_and(|mask| mask & 1 << (libc::SIGQUIT - 1) != 0)
}

#[cfg(test)]
mod tests {
    use super::catches_quit;

    #[test]
    fn only_who_catches_the_signal_is_asked() {
        // A JVM's; one with -Xrs; an ordinary program's.
        assert!(catches_quit(
            "Name:\tjava\nSigIgn:\t0000000000000000\nSigCgt:\t2000000101005ccf\n"
        ));
        assert!(!catches_quit(
            "SigIgn:\t0000000000000004\nSigCgt:\t2000000101001cc8\n"
        ));
        assert!(!catches_quit("SigCgt:\t0000000000000000\n"));
        assert!(!catches_quit("Name:\tjava\n"));
    }
}
