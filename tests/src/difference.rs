//! Where a report differs from the model: opener, holders, state, age and count.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::model::{Model, ModelSocket};
use crate::report::{Opener, Report, Socket};
use crate::truth;

/// Clocks are converted (boot time to calendar time), so ages agree to this only.
const CLOCK_TOLERANCE_S: f64 = 1.0;

/// Every difference, in words; empty where connleak told the truth.
pub fn differences(report: &Report, model: &Model, port: u16) -> Result<Vec<String>> {
    let mut told: Vec<_> = report
        .sockets()?
        .into_iter()
        .filter(|(ends, _, _)| ends.1.port() == port)
        .collect();
    let mut found = Vec::new();
    for (name, socket) in &model.sockets {
        let holders = model.holders(*name);
        let is_it = |row: &Opener, listed: &Socket| {
            listed.state == socket.state
                && listed
                    .holders
                    .iter()
                    .map(|h| (h.pid, h.fd))
                    .collect::<BTreeSet<_>>()
                    == holders
                && is_row_of(row, listed, socket, model)
        };
        let ends = (socket.local, socket.remote);
        match told
            .iter()
            .position(|(e, row, listed)| *e == ends && is_it(row, listed))
        {
            Some(at) => {
                let (_, _, listed) = told.remove(at);
                if let Some(difference) = age_difference(listed, socket) {
                    found.push(difference);
                }
            }
            None => {
                let near: Vec<_> = told.iter().filter(|(e, _, _)| *e == ends).collect();
                found.push(format!(
                    "expected {socket:?} held by {holders:?}; the report has {near:?}"
                ));
            }
        }
    }
    found.extend(
        told.iter()
            .map(|(_, row, listed)| format!("not in the model: {listed:?} of {:?}", row.pid)),
    );
    for process in model.processes.values() {
        let rows: Vec<_> = report.of(process.pid).collect();
        if process.opened > 0 && rows.len() != 1 {
            found.push(format!("{} rows of process {}", rows.len(), process.pid));
        }
        for row in rows {
            if row.opened != Some(process.opened) {
                found.push(format!(
                    "process {} opened {}, not {:?}",
                    process.pid, process.opened, row.opened
                ));
            }
            if row.name.as_deref() != Some(&process.name) {
                found.push(format!(
                    "process {} is {}, not {:?}",
                    process.pid, process.name, row.name
                ));
            }
        }
    }
    let established = model.count("ESTABLISHED") as u64;
    let totals = &report.totals;
    let ss = truth::count(port)?;
    if (totals.established_client_ends, totals.established_both_ends) != (established, ss.both_ends)
    {
        found.push(format!(
            "expected {established} client ends and {ss:?}; the report has {totals:?}"
        ));
    }
    if totals.drift > unseen() || totals.unattributed != 0 || report.lost() != 0 {
        found.push(format!(
            "drift, unattributed or lost without load: {totals:?}"
        ));
    }
    Ok(found)
}

/// Sockets whose events this host may hide, and which reconciling then puts right as drift.
fn unseen() -> i64 {
    if host_hides_softirqs() { 2 } else { 0 }
}

/// The kernel of a Firecracker sandbox (6.18.44-fc) runs no BPF program while PID 1 is the current
/// task: its `bpf_trace_run3` compares `current->tgid` with 1 and returns, and counts no miss. A
/// softirq that falls into PID 1's time is then seen by nobody. No other kernel is known to do so;
/// the virtual machines' kernels do not, and are allowed nothing.
#[must_use]
pub fn host_hides_softirqs() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.contains("-fc-")
}

/// The opener's own row; once the opener has exited, the row of a holder that remembers it.
fn is_row_of(row: &Opener, listed: &Socket, socket: &ModelSocket, model: &Model) -> bool {
    if model.processes.contains_key(&socket.opener) {
        return row.pid == Some(socket.opener_pid);
    }
    let remembered = listed.opener.as_ref().map(|o| o.pid);
    let of_holder = row
        .pid
        .is_some_and(|pid| listed.holding_pids().contains(&pid));
    of_holder && remembered == Some(socket.opener_pid)
}

fn age_difference(listed: &Socket, socket: &ModelSocket) -> Option<String> {
    let Some(at) = listed.opened_at.as_deref().and_then(unix_seconds) else {
        return Some(format!("no time of opening: {listed:?}"));
    };
    let (from, to) = socket.opened_between;
    let inside = (from - CLOCK_TOLERANCE_S..=to + CLOCK_TOLERANCE_S).contains(&at);
    (!inside).then(|| format!("opened at {at}, not between {from} and {to}: {listed:?}"))
}

/// RFC 3339 in UTC to Unix seconds.
fn unix_seconds(text: &str) -> Option<f64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute) = (number(11, 13)?, number(14, 16)?);
    let second: f64 = text
        .get(17..)?
        .trim_end_matches('Z')
        .trim_end_matches("+00:00")
        .parse()
        .ok()?;
    // Days of the civil calendar since 1970, with years that begin in March.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some((days * 86_400 + hour * 3600 + minute * 60) as f64 + second)
}

#[cfg(test)]
mod tests {
    use super::unix_seconds;

    #[test]
    fn times_are_read() {
        assert_eq!(unix_seconds("1970-01-01T00:00:00Z"), Some(0.0));
        assert_eq!(
            unix_seconds("2026-11-23T03:20:00.5Z"),
            Some(1_795_404_000.5)
        );
        assert_eq!(unix_seconds("2024-02-29T23:59:59Z"), Some(1_709_251_199.0));
        assert_eq!(unix_seconds("yesterday"), None);
    }
}
