//! The standing of a running trace: what the daemon asks of it between two reports.

use std::{
    collections::{BTreeSet, HashSet},
    net::SocketAddr,
    time::Duration,
};

use anyhow::Result;

use super::{state::State, tracer::Tracer};
use crate::{
    accounting::{self, Owner, RunningCounts},
    clock::{self, Clock},
    decode::socket::{End, SocketId},
    host::Host,
    kernel::Walk,
    process::{Process, ProcessKey},
    report::{Listing, Report, model::Lost},
    sockets::{Drift, Entry},
};

impl Tracer {
    /// Looks up who holds what, and with it who listens and who answers for inherited sockets.
    ///
    /// # Errors
    ///
    /// The kernel refused the walk.
    pub fn look_at_holders(&mut self) -> Result<()> {
        let (_, open_files) = self.walk(Walk::OpenFiles)?;
        self.drain();
        self.state.take_open_files(&open_files);
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

    /// Client ends (local, remote) on `port` that a process of `unit` answers for.
    pub fn client_ends_of(&self, unit: &str, port: Option<u16>) -> Vec<(SocketAddr, SocketAddr)> {
        let state = &self.state;
        let belongs = |entry: &&Entry| {
            let owner = accounting::owner(entry, &state.table, &state.processes);
            let socket = &entry.socket;
            socket.end == End::Client
                && port.is_none_or(|port| port == socket.remote.port())
                && matches!(owner, Owner::Process(key)
                    if self.process(key).and_then(|it| it.unit.as_deref()) == Some(unit))
        };
        let entries = state.table.iter().filter(belongs);
        entries
            .map(|entry| (entry.socket.local, entry.socket.remote))
            .collect()
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
        Ok(Lost::from_counters(&self.maps.counters()?))
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
            named.extend(entry.socket.opener.as_ref().map(|opener| opener.process));
            named.extend(entry.holders.iter().map(|holder| holder.process));
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
        let now_ns = clock::boot_ns();
        match self.table.get(id) {
            Some(entry) => {
                let owner = accounting::owner(entry, &self.table, &self.processes);
                self.counts.set(&entry.socket, owner, now_ns);
            }
            None => self.counts.forget(id, now_ns),
        }
    }

    pub(super) fn count_all(&mut self) {
        let Self {
            table,
            counts,
            processes,
            ..
        } = self;
        let sockets = table
            .iter()
            .map(|entry| (&entry.socket, accounting::owner(entry, table, processes)));
        let lives = |key| processes.get(key).is_some_and(|process| !process.ended);
        counts.renew(sockets, lives, clock::boot_ns());
    }
}
