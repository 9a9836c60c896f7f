//! Reconciling: the table against the kernel's map and against the sockets that really exist.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::table::SocketTable;
use crate::decode::{
    open_file::OpenFile,
    socket::{NoStack, Socket, SocketId, TcpState},
};

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

impl SocketTable {
    /// Sockets that the kernel's map tells otherwise than this table. Until they are looked at
    /// one by one they are only suspects: a busy kernel changes the map while it is read.
    pub fn suspects(&self, records: &[Socket]) -> Vec<SocketId> {
        let by_id: HashMap<SocketId, &Socket> =
            records.iter().map(|record| (record.id, record)).collect();
        let missing = self
            .iter()
            .map(|entry| entry.socket.id)
            .filter(|id| !by_id.contains_key(id));
        let different = records
            .iter()
            .filter(|record| self.get(record.id).map(|entry| &entry.socket) != Some(record))
            .map(|record| record.id);
        missing.chain(different).collect()
    }

    /// Makes one socket what the kernel's map says of it now, and counts what was not so.
    pub fn repair(&mut self, id: SocketId, record: Option<&Socket>, drift: &mut Drift) {
        let known = self.get(id).map(|entry| entry.socket.clone());
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
            (_, Some(record)) => {
                self.change(record);
                drift.missed_notice += 1;
            }
            (None, None) => {}
        }
    }

    /// Sockets of the table that no walk over the kernel's own lists found, though they are in a
    /// namespace that was walked and did not change since `settled_ns`.
    pub fn gone(
        &self,
        walked: &[OpenFile],
        walked_namespaces: &HashSet<u32>,
        settled_ns: u64,
    ) -> Vec<SocketId> {
        let alive: HashSet<SocketId> = walked.iter().map(|file| file.id).collect();
        self.iter()
            .map(|entry| &entry.socket)
            .filter(|socket| !alive.contains(&socket.id))
            .filter(|socket| walked_namespaces.contains(&socket.netns))
            .filter(|socket| last_change_ns(socket) < settled_ns)
            // TCP hashes no socket in CLOSE; while no process is seen to hold one, it may be on
            // its way in a message (SCM_RIGHTS).
            .filter(|socket| socket.state != TcpState::Close)
            .map(|socket| socket.id)
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

/// The map was read before a notice that has arrived since.
fn is_older(record: &Socket, known: &Socket) -> bool {
    last_change_ns(record) < last_change_ns(known)
}
