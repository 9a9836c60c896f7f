//! Watching: a side at work, until it is dropped or its report is asked for.

use std::fs;
use std::io;
use std::process::{Child, ExitStatus};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use connleak_tests::report::Report;

use crate::programs::Programs;

const LOOK: Duration = Duration::from_millis(50);
/// What a side gets to print its last words.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// By default it is nobody that watches.
#[derive(Default)]
pub(crate) struct Watching {
    child: Option<Child>,
    report: Option<JoinHandle<io::Result<String>>>,
    pub(crate) programs: Programs,
}

impl Watching {
    pub(crate) fn of(child: Child, report: Option<JoinHandle<io::Result<String>>>) -> Self {
        Self {
            child: Some(child),
            report,
            programs: Programs::default(),
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.child {
            Some(child) => child.try_wait().context("failed to wait for a side"),
            None => Ok(None),
        }
    }

    /// A side that has ended costs nothing.
    pub(crate) fn ensure_at_work(&mut self) -> Result<()> {
        let ended = self.ended()?;
        ensure!(ended.is_none(), "a side ended too early: {ended:?}");
        Ok(())
    }

    /// Ends connleak. What it reports; `None` of the others.
    pub(crate) fn end(mut self) -> Result<Option<Report>> {
        self.interrupt();
        let Some(report) = self.report.take() else {
            return Ok(None);
        };
        let report = report.join();
        let report = report.map_err(|_| anyhow::anyhow!("the reader of a report panicked"))??;
        let report = serde_json::from_str(&report).context("failed to read connleak's report")?;
        Ok(Some(report))
    }

    /// User and system time of its process so far, us.
    pub(crate) fn own_cpu_us(&self) -> f64 {
        // Of /proc/PID/task/TID/schedstat the first number: ns on a CPU, where stat has ticks.
        let of_thread = |thread: fs::DirEntry| -> Option<f64> {
            let schedstat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            schedstat.split_whitespace().next()?.parse().ok()
        };
        let threads = self
            .pid()
            .map(|pid| fs::read_dir(format!("/proc/{pid}/task")));
        let threads = threads.and_then(Result::ok).into_iter().flatten().flatten();
        threads.filter_map(of_thread).sum::<f64>() / 1000.0
    }

    fn interrupt(&mut self) {
        // Once: the PID of a child that was waited for may be another's.
        if let Some(mut child) = self.child.take() {
            interrupt(&mut child);
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.interrupt();
    }
}

/// As Ctrl-C does, so that it detaches and prints its last words; then less kindly.
pub(crate) fn interrupt(child: &mut Child) {
    let asked = Instant::now();
    if let Ok(pid) = libc::pid_t::try_from(child.id()) {
        // SAFETY: kill takes no pointers; the pid is our child's until it is waited for.
        unsafe { libc::kill(pid, libc::SIGINT) };
    }
    while matches!(child.try_wait(), Ok(None)) {
        if asked.elapsed() > LAST_WORDS {
            // It may end by itself in between.
            let _ = child.kill();
            break;
        }
        thread::sleep(LOOK);
    }
    let _ = child.wait();
}
