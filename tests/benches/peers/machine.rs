//! The machine: what it is, and why its figures may not be trusted.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

const TRACEFS: &str = "/sys/kernel/tracing";
const LOOKED_FOR: Duration = Duration::from_secs(2);
/// Of all CPUs, idle: below this somebody else is at work.
const QUIET: f64 = 0.9;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpus: usize,
    /// Share of CPU time that nobody used just before the bench.
    pub(crate) idle: f64,
    /// Share that the hypervisor gave to others.
    pub(crate) stolen: f64,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let before = cpu_ticks();
        thread::sleep(LOOKED_FOR);
        let after = cpu_ticks();
        let spent = |index: usize| {
            let of = |ticks: &[u64]| ticks.get(index).copied().unwrap_or(0);
            of(&after).saturating_sub(of(&before)) as f64
        };
        let all: f64 = (0..8).map(spent).sum::<f64>().max(1.0);
        Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            cpus: thread::available_parallelism().map_or(1, Into::into),
            idle: (spent(3) + spent(4)) / all,
            stolen: spent(7) / all,
        }
    }

    pub(crate) fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if self.idle < QUIET {
            doubts.push(format!(
                "this machine is busy ({:.0} % idle): trust no figure of this run",
                self.idle * 100.0
            ));
        }
        if self.stolen > 0.02 {
            doubts.push(format!(
                "the hypervisor takes {:.0} % of the CPUs: expect spread",
                self.stolen * 100.0
            ));
        }
        doubts
    }
}

/// user nice system idle iowait irq softirq steal, in ticks.
fn cpu_ticks() -> Vec<u64> {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    first
        .split_whitespace()
        .skip(1)
        .filter_map(|ticks| ticks.parse().ok())
        .collect()
}

/// tracefs, which the peers need, mounted for as long as the bench runs.
pub(crate) struct Tracefs(());

pub(crate) fn mount_tracefs() -> Result<Option<Tracefs>> {
    if Path::new(TRACEFS).join("events").exists() {
        return Ok(None);
    }
    let status = Command::new("mount")
        .args(["-t", "tracefs", "tracefs", TRACEFS])
        .status()
        .context("failed to run mount")?;
    ensure!(
        status.success(),
        "failed to mount tracefs on {TRACEFS}: {status}; run as root"
    );
    Ok(Some(Tracefs(())))
}

impl Drop for Tracefs {
    fn drop(&mut self) {
        // A peer that still ends keeps it busy; then it stays, as it does on most machines.
        let _ = Command::new("umount").arg(TRACEFS).status();
    }
}
