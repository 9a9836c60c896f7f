//! A child process that does not outlive its handle, nor us.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// What a child gets between SIGTERM and SIGKILL when its handle goes.
const GRACE: Duration = Duration::from_secs(2);

pub(super) struct Child {
    child: std::process::Child,
}

impl Child {
    /// Starts it in a process group of its own: Ctrl-C reaches us, and we end it in order.
    pub(super) fn spawn(command: &mut Command) -> Result<Self> {
        Self::spawn_in_our_group(command.process_group(0))
    }

    pub(super) fn spawn_in_our_group(command: &mut Command) -> Result<Self> {
        // SAFETY: prctl is async-signal-safe and touches no memory of the forked child.
        unsafe {
            command.pre_exec(|| {
                // Even a SIGKILL of ours takes the child along.
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) == -1 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command
            .spawn()
            .with_context(|| format!("failed to start {:?}", command.get_program()))?;
        Ok(Self { child })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("failed to wait for a child")
    }

    /// Asks it to end, and ends it after `grace`.
    pub(super) fn stop(&mut self, grace: Duration) {
        let asked = Instant::now();
        if matches!(self.child.try_wait(), Ok(None)) {
            self.terminate();
        }
        while matches!(self.child.try_wait(), Ok(None)) {
            if asked.elapsed() > grace {
                let _ = self.child.kill();
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.wait();
    }

    fn terminate(&self) {
        if let Ok(pid) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: kill takes no pointers; the pid is our child's until it is waited for.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.stop(GRACE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_dropped_handle_ends_its_child() {
        let child = Child::spawn(Command::new("sleep").arg("60")).expect("sleep starts");
        let proc_dir = format!("/proc/{}", child.pid());
        assert!(Path::new(&proc_dir).exists());
        drop(child);
        assert!(!Path::new(&proc_dir).exists());
    }

    #[test]
    fn a_child_that_ignores_sigterm_is_killed() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; while :; do sleep 0.1; done"]);
        let mut child = Child::spawn(&mut command).expect("sh starts");
        child.stop(Duration::from_millis(50));
        assert!(child.ended().expect("waited for").is_some());
    }
}
