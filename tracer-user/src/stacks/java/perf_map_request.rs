//! A JVM asked to write down what it has compiled.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A JVM that stands still does not hold up the stacks of others for longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// `jcmd PID Compiler.perfmap`, JDK 17 and later, as the target's user: the JVM believes no other.
/// What came of it shows in the file.
pub(in super::super) fn write_perf_map(process_dir: &Path, pid: u32) {
    let Ok(target) = fs::metadata(process_dir) else {
        return;
    };
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
