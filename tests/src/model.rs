//! A naive model of the socket table: what must be true after each operation, from first principles.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// A socket that somebody holds.
#[derive(Clone, Debug)]
pub struct ModelSocket {
    pub opener: String,
    pub opener_pid: u32,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub state: &'static str,
    /// The server end is still open.
    pub peer_open: bool,
    /// Unix seconds between which connect was called.
    pub opened_between: (f64, f64),
}

/// A living process.
#[derive(Clone, Debug, Default)]
pub struct ModelProcess {
    pub pid: u32,
    pub name: String,
    /// Its fds by socket.
    pub fds: BTreeMap<u32, BTreeSet<i32>>,
    /// connect calls, failed ones included.
    pub opened: u64,
}

/// Everything that lives.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub sockets: BTreeMap<u32, ModelSocket>,
    pub processes: BTreeMap<String, ModelProcess>,
}

impl Model {
    /// Who holds `socket`: pid and fd.
    #[must_use]
    pub fn holders(&self, socket: u32) -> BTreeSet<(u32, i32)> {
        let of = |p: &ModelProcess| -> Vec<(u32, i32)> {
            p.fds
                .get(&socket)
                .into_iter()
                .flatten()
                .map(|fd| (p.pid, *fd))
                .collect()
        };
        self.processes.values().flat_map(of).collect()
    }

    /// Takes over the fds a process now has on `socket`.
    pub fn set_fds(&mut self, process: &str, socket: u32, fds: &[i32]) {
        if let Some(process) = self.processes.get_mut(process) {
            if fds.is_empty() {
                process.fds.remove(&socket);
            } else {
                process.fds.insert(socket, fds.iter().copied().collect());
            }
        }
    }

    /// A child has what its parent has, but opened nothing itself.
    pub fn fork(&mut self, parent: &str, child: &str, pid: u32) {
        let mut copy = self.processes.get(parent).cloned().unwrap_or_default();
        copy.pid = pid;
        copy.opened = 0;
        self.processes.insert(child.to_owned(), copy);
    }

    /// The server end was closed in order.
    pub fn peer_closes(&mut self, socket: u32) {
        if let Some(socket) = self.sockets.get_mut(&socket) {
            socket.peer_open = false;
            socket.state = match socket.state {
                "ESTABLISHED" => "CLOSE_WAIT",
                // Both directions are done: the kernel keeps a TIME_WAIT of its own, the
                // application a dead socket.
                "FIN_WAIT2" => "CLOSE",
                other => other,
            };
        }
    }

    /// The server end was closed with RST.
    pub fn peer_resets(&mut self, socket: u32) {
        if let Some(socket) = self.sockets.get_mut(&socket) {
            socket.peer_open = false;
            socket.state = "CLOSE";
        }
    }

    pub fn half_closes(&mut self, socket: u32) {
        if let Some(socket) = self.sockets.get_mut(&socket) {
            socket.state = match socket.state {
                "ESTABLISHED" => "FIN_WAIT2",
                // LAST_ACK until the peer's kernel acknowledges, which on loopback is at once.
                "CLOSE_WAIT" => "CLOSE",
                other => other,
            };
        }
    }

    /// Removes the sockets that nobody holds any more and returns those whose server end is open.
    pub fn bury(&mut self) -> Vec<SocketAddr> {
        let held: BTreeSet<u32> = self
            .processes
            .values()
            .flat_map(|p| p.fds.keys().copied())
            .collect();
        let dead: Vec<u32> = self
            .sockets
            .keys()
            .copied()
            .filter(|s| !held.contains(s))
            .collect();
        dead.iter()
            .filter_map(|s| self.sockets.remove(s))
            .filter(|s| s.peer_open)
            .map(|s| s.local)
            .collect()
    }

    /// Sockets in `state`.
    #[must_use]
    pub fn count(&self, state: &str) -> usize {
        self.sockets.values().filter(|s| s.state == state).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(state: &'static str) -> Model {
        let local = SocketAddr::from(([127, 0, 0, 1], 1));
        let socket = ModelSocket {
            opener: "p0".into(),
            opener_pid: 1,
            local,
            remote: local,
            state,
            peer_open: true,
            opened_between: (0.0, 0.0),
        };
        let process = ModelProcess {
            pid: 1,
            ..ModelProcess::default()
        };
        let mut model = Model {
            sockets: [(7, socket)].into(),
            processes: [("p0".to_owned(), process)].into(),
        };
        model.set_fds("p0", 7, &[3]);
        model
    }

    #[test]
    fn a_socket_lives_until_its_last_holder_lets_go() {
        let mut model = one("ESTABLISHED");
        model.fork("p0", "p1", 2);
        assert_eq!(model.holders(7), [(1, 3), (2, 3)].into());
        model.processes.remove("p0");
        assert!(model.bury().is_empty());
        model.set_fds("p1", 7, &[]);
        assert_eq!(model.bury().len(), 1);
        assert!(model.sockets.is_empty());
    }

    #[test]
    fn both_directions_closed_leave_a_dead_socket() {
        let mut first = one("ESTABLISHED");
        first.half_closes(7);
        first.peer_closes(7);
        let mut second = one("ESTABLISHED");
        second.peer_closes(7);
        second.half_closes(7);
        assert_eq!((first.count("CLOSE"), second.count("CLOSE")), (1, 1));
    }
}
