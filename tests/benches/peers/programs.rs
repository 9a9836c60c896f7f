//! Programs: the kernel's own account of how long BPF programs ran.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

/// Counting costs some 30 ns an event, so it is on only while it is asked for.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunTime {
    pub(crate) ns: u64,
    pub(crate) runs: u64,
}

/// Every program that is loaded, by its ID.
#[derive(Clone, Debug, Default)]
pub(crate) struct Programs(HashMap<u64, RunTime>);

#[derive(Deserialize)]
struct Listed {
    id: u64,
    #[serde(default)]
    run_time_ns: u64,
    #[serde(default)]
    run_cnt: u64,
}

impl Programs {
    pub(crate) fn now() -> Result<Self> {
        let output = Command::new("bpftool")
            .args(["prog", "show", "--json"])
            .output()
            .context("failed to run bpftool")?;
        let listed: Vec<Listed> = serde_json::from_slice(&output.stdout)
            .context("failed to read what bpftool says of the programs; run as root")?;
        let run_time = |program: Listed| {
            let spent = RunTime {
                ns: program.run_time_ns,
                runs: program.run_cnt,
            };
            (program.id, spent)
        };
        Ok(Self(listed.into_iter().map(run_time).collect()))
    }

    /// Programs that were not there `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let new = self.0.iter().filter(|(id, _)| !before.0.contains_key(id));
        Self(new.map(|(id, spent)| (*id, *spent)).collect())
    }

    /// The programs of `chosen`, as they are here.
    pub(crate) fn of(&self, chosen: &Self) -> Self {
        let these = self.0.iter().filter(|(id, _)| chosen.0.contains_key(id));
        Self(these.map(|(id, spent)| (*id, *spent)).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What these programs spent after they were as in `earlier`.
    pub(crate) fn spent_after(&self, earlier: &Self) -> RunTime {
        self.0
            .iter()
            .filter(|(id, _)| earlier.0.contains_key(id))
            .fold(RunTime::default(), |sum, (id, now)| {
                let then = earlier.0.get(id).copied().unwrap_or_default();
                RunTime {
                    ns: sum.ns + now.ns.saturating_sub(then.ns),
                    runs: sum.runs + now.runs.saturating_sub(then.runs),
                }
            })
    }
}

/// The kernel's account is on for as long as this lives.
pub(crate) struct Counting {
    before: String,
}

impl Counting {
    pub(crate) fn begin() -> Result<Self> {
        let before =
            fs::read_to_string(SWITCH).with_context(|| format!("failed to read {SWITCH}"))?;
        fs::write(SWITCH, "1").with_context(|| format!("failed to write {SWITCH}; run as root"))?;
        Ok(Self { before })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        // Left on it costs the machine a little, and the next bench switches it off.
        let _ = fs::write(SWITCH, self.before.trim());
    }
}
