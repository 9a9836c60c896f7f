//! What a program left open: connections of followed processes that nobody closed.

use std::collections::HashSet;

use anyhow::Result;

use super::tracer::Tracer;
use crate::{
    clock,
    decode::socket::{End, TcpState},
    process::ProcessKey,
    report::{self, Report},
    sockets::{Entry, SocketTable},
};

impl Tracer {
    /// From now on remembers what is open when its last holder ends.
    pub fn remember_abandoned(&mut self) {
        self.state.table.remember_abandoned();
    }

    /// The connections that followed processes opened, and that are still open or were when the
    /// last process that held them ended; each in the state it had then.
    ///
    /// # Errors
    ///
    /// The kernel refused a look-up.
    pub fn left_open(&mut self) -> Result<Report> {
        let followed = self.followed()?;
        let moment = self.ask_moment()?;
        let state = &self.state;
        let is_left = |entry: &&Entry| {
            let opener = entry.opener();
            entry.end() == End::Client
                && entry.established_ns().is_some()
                && opener.is_some_and(|opener| followed.contains(&opener.process))
        };
        let open = state.table.iter().filter(|entry| is_open(entry));
        let left = open.chain(state.table.abandoned()).filter(is_left);
        let table = SocketTable::of_entries(left.cloned());
        let mut sources = state.sources(&self.ports, clock::boot_ns());
        sources.table = &table;
        sources.probes = super::tracer::taken(self.probes());
        sources.lost = report::model::Lost::from_counters(&moment.counters);
        Ok(report::build(&sources))
    }

    fn followed(&self) -> Result<HashSet<ProcessKey>> {
        let openers = self.maps.openers()?.into_iter();
        Ok(openers
            .filter(|(_, counts)| counts.followed != 0)
            .map(|(key, _)| ProcessKey {
                pid: key.tgid,
                start_time_ns: key.start_ns,
            })
            .collect())
    }
}

/// Nobody closed it: a process still holds it.
fn is_open(entry: &Entry) -> bool {
    !entry.is_let_go()
        && !entry.is_abandoned()
        && entry.released_ns().is_none()
        && matches!(
            entry.state(),
            TcpState::Established | TcpState::CloseWait | TcpState::Close
        )
}
