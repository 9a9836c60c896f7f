//! The files of /proc as a fuzzer writes them: name, command line and cgroup are the target's.

use super::cgroup::placement;
use super::resolve::{cmdline, numbers, stat};

/// Any file of /proc/PID, read as each of those that are read.
pub fn proc(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    placement(&text);
    stat(&text);
    numbers(&text, "NSpid");
    cmdline(bytes);
}
