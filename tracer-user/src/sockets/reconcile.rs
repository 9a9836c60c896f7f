//! Reconciling: the table against the kernel's map and against the sockets that really exist.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{entry::Entry, table::SocketTable};
use crate::decode::socket::{NoStack, Socket, SocketId, TcpState};

/// What reconciling found different from the truth, and repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// A notice was lost: the kernel's map knew better.
    pub missed_notice: u64,
    /// The kernel side tracked a socket that exists no more.
    pub gone: u64,
    /// A socket existed that the kernel side did not track.
    pub untracked: u64,
}

impl Drift {
    pub fn total(self) -> u64 {
        self.missed_notice
            .saturating_add(self.gone)
            .saturating_add(self.untracked)
    }

    /// What was added since it was `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            missed_notice: self.missed_notice - before.missed_notice,
            gone: self.gone - before.gone,
            untracked: self.untracked - before.untracked,
        }
    }
}

/// The table beside the records of the kernel's map, which come one at a time.
///
/// Sockets that the map tells otherwise than the table are only suspects until they are looked at
/// one by one: a busy kernel changes the map while it is read.
#[derive(Debug)]
pub struct Comparison<'a> {
    table: &'a SocketTable,
    /// By place in the table: there is a record of it.
    recorded: Vec<bool>,
    different: Vec<SocketId>,
}

impl Comparison<'_> {
    pub fn see(&mut self, record: &Socket) {
        match self.table.placed(record.id) {
            Some((place, entry)) => {
                self.recorded[place] = true;
                if entry.socket() != *record {
                    self.different.push(record.id);
                }
            }
            None => self.different.push(record.id),
        }
    }

    /// After the last record.
    pub fn suspects(self) -> Vec<SocketId> {
        let entries = self.table.iter().zip(&self.recorded);
        let missing = entries.filter(|(_, recorded)| !**recorded);
        let missing = missing.map(|(entry, _)| entry.id());
        missing.chain(self.different).collect()
    }
}

impl SocketTable {
    pub fn compare(&self) -> Comparison<'_> {
        Comparison {
            table: self,
            recorded: vec![false; self.len()],
            different: Vec::new(),
        }
    }

    /// Makes one socket what the kernel's map says of it now, and counts what was not so.
    pub fn repair(&mut self, id: SocketId, record: Option<&Socket>, drift: &mut Drift) {
        let known = self.get(id).map(Entry::socket);
        match (known, record) {
            (Some(known), None) => {
                self.remove(id, known.opened_ns);
                drift.missed_notice += 1;
            }
            (Some(known), Some(record)) if known == *record || is_older(record, &known) => {}
            (None, Some(record)) if record.no_stack == Some(NoStack::Seeded) => {
                self.change(record);
                drift.untracked += 1;
            }
            (Some(known), Some(record)) if is_left_to_the_walk(&known, record) => {
                self.change(record);
            }
            (_, Some(record)) => {
                self.change(record);
                drift.missed_notice += 1;
            }
            (None, None) => {}
        }
    }

    /// Sockets of the table, each with its opening, that no walk over the kernel's own lists found
    /// `alive`, though they are in a namespace that was walked and did not change since `settled_ns`.
    pub fn gone(
        &self,
        alive: &HashSet<SocketId>,
        walked_namespaces: &HashSet<u32>,
        settled_ns: u64,
    ) -> Vec<(SocketId, Option<u64>)> {
        self.iter()
            .filter(|entry| !alive.contains(&entry.id()))
            .filter(|entry| walked_namespaces.contains(&entry.netns()))
            .filter(|entry| last_change_ns(&entry.socket()) < settled_ns)
            // TCP hashes no socket in CLOSE; while no process is seen to hold one, it may be on
            // its way in a message (SCM_RIGHTS).
            .filter(|entry| entry.state() != TcpState::Close)
            .map(|entry| (entry.id(), entry.opened_ns()))
            .collect()
    }
}

fn last_change_ns(socket: &Socket) -> u64 {
    [socket.opened_ns, socket.changed_ns, socket.released_ns]
        .into_iter()
        .flatten()
        .max()
        .unwrap_or(0)
}

/// The state hook tells nothing of an orphan's way into FIN_WAIT2, in which it seldom stays.
fn is_left_to_the_walk(known: &Socket, record: &Socket) -> bool {
    (known.state, record.state) == (TcpState::FinWait1, TcpState::FinWait2) && known.let_go
}

/// The map was read before a notice that has arrived since.
fn is_older(record: &Socket, known: &Socket) -> bool {
    last_change_ns(record) < last_change_ns(known)
}
