//! Programs: the kernel's own account of how long BPF programs ran.

use std::collections::{BTreeMap, HashMap};
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
pub(crate) struct Programs(HashMap<u64, Program>);

#[derive(Clone, Debug)]
struct Program {
    /// As the object's types have it; the kernel by itself keeps 15 bytes.
    name: String,
    spent: RunTime,
}

#[derive(Deserialize)]
struct Listed {
    id: u64,
    #[serde(default)]
    name: String,
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
        let with_id = |listed: Listed| {
            let program = Program {
                name: listed.name,
                spent: RunTime {
                    ns: listed.run_time_ns,
                    runs: listed.run_cnt,
                },
            };
            (listed.id, program)
        };
        Ok(Self(listed.into_iter().map(with_id).collect()))
    }

    /// Programs that were not there `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        self.filtered(|id| !before.0.contains_key(&id))
    }

    /// The programs of `chosen`, as they are here.
    pub(crate) fn of(&self, chosen: &Self) -> Self {
        self.filtered(|id| chosen.0.contains_key(&id))
    }

    fn filtered(&self, wants: impl Fn(u64) -> bool) -> Self {
        let these = self.0.iter().filter(|&(&id, _)| wants(id));
        Self(these.map(|(id, program)| (*id, program.clone())).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What these programs spent after they were as in `earlier`, by name.
    pub(crate) fn spent_after(&self, earlier: &Self) -> Spent {
        let mut spent = BTreeMap::<_, RunTime>::new();
        for (id, then) in &earlier.0 {
            if let Some(now) = self.0.get(id) {
                let of_name = spent.entry(now.name.clone()).or_default();
                of_name.ns += now.spent.ns.saturating_sub(then.spent.ns);
                of_name.runs += now.spent.runs.saturating_sub(then.spent.runs);
            }
        }
        Spent(spent)
    }
}

/// What some programs spent, by name.
#[derive(Clone, Debug)]
pub(crate) struct Spent(BTreeMap<String, RunTime>);

impl Spent {
    pub(crate) fn all(&self) -> RunTime {
        let sum = |sum: RunTime, one: &RunTime| RunTime {
            ns: sum.ns + one.ns,
            runs: sum.runs + one.runs,
        };
        self.0.values().fold(RunTime::default(), sum)
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = (&str, RunTime)> {
        self.0.iter().map(|(name, spent)| (name.as_str(), *spent))
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
