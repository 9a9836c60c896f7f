//! Reconciling: the table against the kernel's map and against the sockets that really exist.

use std::collections::HashSet;

use serde::Serialize;

use super::table::SocketTable;
use crate::decode::{
    open_file::OpenFile,
    socket::{Socket, SocketId, TcpState},
};

/// What one reconcile found and repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// A notice was lost: the kernel's map knew better.
    pub missed_notice: u64,
    /// The kernel side tracked a socket that exists no more.
    pub gone: u64,
    /// A socket exists that the kernel side does not track.
    pub untracked: u64,
}

impl Drift {
    pub fn total(self) -> u64 {
        self.missed_notice + self.gone + self.untracked
    }
}

impl SocketTable {
    /// Makes the table what the kernel's map is. Counts what was not so before.
    ///
    /// A busy kernel changes the map while it is read, so a difference that is younger than the
    /// read is no drift: only sockets that did not change since `settled_ns` are counted.
    pub fn reconcile_with_map(&mut self, records: &[Socket], settled_ns: u64) -> Drift {
        let mut drift = Drift::default();
        let alive: HashSet<SocketId> = records.iter().map(|record| record.id).collect();
        for record in records {
            let changed = self.change(record);
            if changed && is_settled(record, settled_ns) {
                drift.missed_notice += 1;
            }
        }
        let stale: Vec<(SocketId, Option<u64>)> = self
            .iter()
            .filter(|entry| !alive.contains(&entry.socket.id))
            .filter(|entry| is_settled(&entry.socket, settled_ns))
            .map(|entry| (entry.socket.id, entry.socket.opened_ns))
            .collect();
        for (id, opened_ns) in stale {
            self.remove(id, opened_ns);
            drift.missed_notice += 1;
        }
        drift
    }

    /// Sockets of the table that no walk over the kernel's own lists found: `Gone`, if they are
    /// in a namespace that was walked and did not change since `settled_ns`.
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
            .filter(|socket| is_settled(socket, settled_ns))
            // TCP hashes no socket in CLOSE; while no process is seen to hold one, it may be on
            // its way in a message (SCM_RIGHTS).
            .filter(|socket| !matches!(socket.state, TcpState::Close))
            .map(|socket| socket.id)
            .collect()
    }
}

fn is_settled(socket: &Socket, settled_ns: u64) -> bool {
    [socket.opened_ns, socket.changed_ns, socket.released_ns]
        .into_iter()
        .flatten()
        .all(|time_ns| time_ns < settled_ns)
}
