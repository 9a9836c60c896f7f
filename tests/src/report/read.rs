//! Reading a report: what no type can say is checked, and what tests ask is answered.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::{Opener, Report, Socket, StackGroup};
use crate::address;
use crate::truth::Ends;

impl Report {
    /// Reads and checks what no type can say: the schema's name, sums, times.
    pub fn read(json: &[u8]) -> Result<Self> {
        let text = String::from_utf8_lossy(json);
        let report: Self = serde_json::from_slice(json)
            .with_context(|| format!("failed to read the report strictly: {}", head(&text)))?;
        ensure!(
            report.schema == "connleak.report/1",
            "schema is {:?}",
            report.schema
        );
        for time in [&report.started_at, &report.generated_at] {
            ensure!(is_rfc3339_utc(time), "{time:?} is no RFC 3339 time in UTC");
        }
        for opener in &report.openers {
            let by_state: u64 = opener.states.values().sum();
            ensure!(
                by_state == opener.outstanding,
                "states do not add up to outstanding: {opener:?}"
            );
            let by_stack: u64 = opener.stacks.iter().map(|s| s.outstanding).sum();
            ensure!(
                by_stack == opener.outstanding,
                "stacks do not add up to outstanding: {opener:?}"
            );
            for socket in &opener.sockets {
                address::parse(&socket.local)?;
                address::parse(&socket.remote)?;
                if let Some(time) = &socket.opened_at {
                    ensure!(is_rfc3339_utc(time), "{time:?} is no RFC 3339 time in UTC");
                }
            }
        }
        Ok(report)
    }

    /// Every row of process `pid`: one a network namespace at most.
    pub fn of(&self, pid: u32) -> impl Iterator<Item = &Opener> {
        self.openers.iter().filter(move |o| o.pid == Some(pid))
    }

    /// Sockets opened by `pid` that are outstanding.
    #[must_use]
    pub fn outstanding(&self, pid: u32) -> u64 {
        self.of(pid).map(|o| o.outstanding).sum()
    }

    /// Function names of every stack group of `pid`, innermost first, with the group's size.
    #[must_use]
    pub fn functions(&self, pid: u32) -> Vec<(u64, Vec<String>)> {
        let names = |s: &StackGroup| {
            s.frames
                .iter()
                .map(|f| f.function.clone().unwrap_or_else(|| "?".into()))
                .collect()
        };
        self.of(pid)
            .flat_map(|o| &o.stacks)
            .map(|s| (s.outstanding, names(s)))
            .collect()
    }

    /// Every socket of the report with the row it is in and its two ends.
    pub fn sockets(&self) -> Result<Vec<(Ends, &Opener, &Socket)>> {
        let mut all = Vec::new();
        for opener in &self.openers {
            for socket in &opener.sockets {
                let ends = (
                    address::parse(&socket.local)?,
                    address::parse(&socket.remote)?,
                );
                all.push((ends, opener, socket));
            }
        }
        Ok(all)
    }

    /// Connects since the start, over all processes, with those of processes that found no room.
    #[must_use]
    pub fn opened(&self) -> u64 {
        let by_opener: u64 = self.openers.iter().filter_map(|o| o.opened).sum();
        let roomless = self.totals.lost.get("openers_full").copied().unwrap_or(0);
        self.totals.opened.unwrap_or(by_opener + roomless)
    }

    /// Events and records that were lost for good or for a while. Stacks not taken do not count.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let causes = ["ring_full", "map_full", "openers_full"];
        causes
            .iter()
            .filter_map(|cause| self.totals.lost.get(*cause))
            .sum()
    }
}

impl Socket {
    #[must_use]
    pub fn holding_pids(&self) -> BTreeSet<u32> {
        self.holders.iter().map(|h| h.pid).collect()
    }
}

fn is_rfc3339_utc(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    let Some(rest) = shape.strip_prefix("0000-00-00T00:00:00") else {
        return false;
    };
    let fraction = rest
        .strip_suffix('Z')
        .or_else(|| rest.strip_suffix("+00:00"));
    fraction.is_some_and(|f| f.is_empty() || f.starts_with('.') && f[1..].chars().all(|c| c == '0'))
}

fn head(text: &str) -> String {
    text.chars().take(2000).collect()
}
