//! The standing of a running trace: what the daemon asks of it between two reports.

use std::{
    collections::{BTreeSet, HashSet},
    net::SocketAddr,
    time::Duration,
};

use anyhow::Result;

use super::{judging::Judging, state::State, tracer::Tracer};
use crate::{
    accounting::{self, Owner, RunningCounts},
    clock::{self, Clock},
    config::CountMode,
    decode::socket::{End, SocketId},
    host::Host,
    policy::level::Thresholds,
    process::{Process, ProcessKey, Processes},
    report::{Listing, PortStanding, Report, model::Lost},
    sockets::{Drift, Entry},
    stacks::KnownSites,
};

impl Tracer {
    /// Looks up who holds what, and with it who listens and who answers for inherited sockets.
    ///
    /// # Errors
    ///
    /// The kernel refused the walk.
    pub fn look_at_holders(&mut self) -> Result<()> {
        let open_files = self.walk_open_files()?;
        self.drain();
        self.state.take_open_files(open_files.files(&self.ports));
        self.state.at_ns = clock::boot_ns();
        self.state.count_all();
        Ok(())
    }

    /// What is outstanding now, told by the events. Holders, queues and idle times may be as old
    /// as `holders_age_max`: looking at all open files is what a report costs most for.
    ///
    /// # Errors
    ///
    /// The kernel refused a look-up or a walk.
    pub fn glance(&mut self, listing: Listing, holders_age_max: Duration) -> Result<Report> {
        self.drain();
        let age_ns = clock::boot_ns().saturating_sub(self.walked_ns);
        if u128::from(age_ns) >= holders_age_max.as_nanos() {
            self.look_at_holders()?;
        }
        let moment = self.ask_moment()?;
        Ok(self.report_of(&moment, listing))
    }

    /// The counts as of the last event; reading them asks the kernel nothing.
    pub fn counts(&self) -> &RunningCounts {
        &self.state.counts
    }

    /// Whether the counts changed since this was last asked.
    pub fn counts_changed(&mut self) -> bool {
        self.state.counts.take_changed()
    }

    pub fn tracked_sockets(&self) -> usize {
        self.state.table.len()
    }

    pub fn process(&self, key: ProcessKey) -> Option<&Process> {
        self.state.processes.get(key)
    }

    /// Units that listen on a watched port, as of the last walk.
    pub fn listening_units(&self) -> BTreeSet<String> {
        self.state
            .table
            .listeners()
            .filter_map(|holder| self.process(holder.process)?.unit.clone())
            .collect()
    }

    /// Client ends (local, remote), each with the process that answers for it.
    pub fn client_ends(&self) -> impl Iterator<Item = (ProcessKey, SocketAddr, SocketAddr)> {
        let state = &self.state;
        let entries = state.table.iter();
        let entries = entries.filter(|entry| entry.end() == End::Client);
        entries.filter_map(
            |entry| match accounting::owner(entry, &state.table, &state.processes) {
                Owner::Process(key) => Some((key, entry.local(), entry.remote())),
                Owner::Unattributed => None,
            },
        )
    }

    /// Client ends (local, remote) on `port` that a process of `unit` answers for.
    pub fn client_ends_of(&self, unit: &str, port: Option<u16>) -> Vec<(SocketAddr, SocketAddr)> {
        let in_unit = |key| self.process(key).and_then(|it| it.unit.as_deref()) == Some(unit);
        let ends = self.client_ends();
        let ends = ends.filter(|(_, _, remote)| port.is_none_or(|port| port == remote.port()));
        ends.filter(|(key, _, _)| in_unit(*key))
            .map(|(_, local, remote)| (local, remote))
            .collect()
    }

    /// From now on judges by something else.
    pub fn judge_by(&mut self, judging: Judging) {
        self.state.groups.set_rules(judging.verdicts);
        self.state.known_sites = KnownSites::default();
        self.state.judging = judging;
    }

    pub fn drift(&self) -> Drift {
        self.state.drift
    }

    pub fn host(&self) -> &Host {
        &self.state.host
    }

    pub fn clock(&self) -> &Clock {
        &self.state.clock
    }

    /// What the kernel side could not deliver.
    ///
    /// # Errors
    ///
    /// The kernel refused the look-up.
    pub fn lost(&self) -> Result<Lost> {
        Ok(Lost::from_counters(&self.counters()?))
    }

    /// Forgets the ended processes that no socket names any more: a daemon runs for months.
    ///
    /// # Errors
    ///
    /// The kernel refused it.
    pub fn forget_ended(&mut self) -> Result<()> {
        let state = &mut self.state;
        let mut named: HashSet<ProcessKey> = HashSet::new();
        for entry in state.table.iter() {
            named.extend(entry.opener().map(|opener| opener.process));
            named.extend(entry.holders().iter().map(|holder| holder.process()));
        }
        let done: HashSet<ProcessKey> = state
            .processes
            .ended()
            .filter(|key| !named.contains(key))
            .collect();
        if done.is_empty() {
            return Ok(());
        }
        state.processes.retain(|key| !done.contains(&key));
        for (key, _) in self.maps.openers()? {
            let process = ProcessKey {
                pid: key.tgid,
                start_time_ns: key.start_ns,
            };
            if done.contains(&process) {
                self.maps.forget_opener(key)?;
            }
        }
        Ok(())
    }
}

impl State {
    /// One socket changed.
    pub(super) fn count(&mut self, id: SocketId) {
        let now_ns = self.at_ns;
        match self.table.get(id) {
            Some(entry) => {
                let owner = accounting::owner(entry, &self.table, &self.processes);
                let socket = entry.socket();
                self.counts.set(&socket, owner, now_ns);
                let unit = unit(owner, &self.processes);
                self.groups.set(&socket, owner, unit, now_ns);
            }
            None => {
                self.counts.forget(id, now_ns);
                self.groups.forget(id, now_ns);
            }
        }
    }

    pub(super) fn count_all(&mut self) {
        let Self {
            table,
            counts,
            groups,
            processes,
            at_ns,
            ..
        } = self;
        let exists = |id| table.get(id).is_some();
        let owner = |entry: &Entry| accounting::owner(entry, table, processes);
        groups.retain(exists, *at_ns);
        for entry in table.iter() {
            let owner = owner(entry);
            groups.set(&entry.socket(), owner, unit(owner, processes), *at_ns);
        }
        let lives = |key| processes.get(key).is_some_and(|process| !process.ended);
        counts.renew(table.iter(), exists, owner, lives, *at_ns);
    }

    /// What is there now was there before the watch.
    pub(super) fn begin(&mut self, now_ns: u64) {
        self.at_ns = self.at_ns.max(now_ns);
        self.counts.begin(now_ns);
        self.groups.begin(now_ns);
    }

    /// Looks at all sockets for the verdicts.
    pub(super) fn look(&mut self, now_ns: u64) {
        self.at_ns = self.at_ns.max(now_ns);
        self.looked_ns = now_ns;
        self.groups.look(self.table.iter(), &self.clock, now_ns);
    }

    /// How the only watched port stands to its levels.
    pub(super) fn port_standing(&self, ports: &[u16]) -> Option<PortStanding> {
        let [port] = ports else {
            return None;
        };
        let watches = &self.judging.watches;
        let watch = watches.iter().find(|watch| watch.port == *port)?;
        let totals = self.counts.port(*port);
        let (count, per_connection) = match watch.count {
            CountMode::ClientEnds => (totals.client_ends, 1.0),
            CountMode::BothEnds => {
                let here = f64::from(totals.server_ends.min(totals.client_ends));
                let clients = f64::from(totals.client_ends.max(1));
                (totals.both_ends(), 1.0 + here / clients)
            }
        };
        Some(PortStanding {
            thresholds: Thresholds {
                warning: watch.warning,
                leak: watch.leak,
                critical: watch.critical,
            },
            count,
            per_connection,
        })
    }
}

pub(super) fn unit(owner: Owner, processes: &Processes) -> Option<&str> {
    match owner {
        Owner::Process(key) => processes.get(key)?.unit.as_deref(),
        Owner::Unattributed => None,
    }
}
