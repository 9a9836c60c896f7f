//! A JVM asked to write down what it has compiled, and its spelling of methods made plain.

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

/// `java.net.Socket Orders.getClient(java.lang.String, int)` is `Orders.getClient`; other names
/// stay as they are.
pub(in super::super) fn plain_name(name: &str) -> &str {
    let Some((before, _)) = name.strip_suffix(')').and_then(|name| name.split_once('(')) else {
        return name;
    };
    match before.rsplit_once(' ') {
        Some((_, method)) if method.contains('.') => method,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_lose_their_types_and_nothing_else_does() {
        let plain = "Orders.getClient";
        assert_eq!(
            plain_name("java.net.Socket Orders.getClient(java.lang.String, int)"),
            plain
        );
        assert_eq!(plain_name("void Orders.getClient()"), plain);
        assert_eq!(plain_name("StubRoutines (1)"), "StubRoutines (1)");
        assert_eq!(plain_name("JS:*get /a.js:1:2"), "JS:*get /a.js:1:2");
    }
}
