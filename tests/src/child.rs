//! A child that cannot outlive the thread that started it, even when the test binary is killed.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Sets PR_SET_PDEATHSIG. The signal comes when the starting *thread* ends: start and use such a
/// child within one test function (or one [`crate::netns::NetNs::enter`]).
pub fn bound(command: &mut Command) -> &mut Command {
    // SAFETY: prctl with these arguments is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        })
    }
}
