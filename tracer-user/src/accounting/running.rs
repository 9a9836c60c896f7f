//! The running counts: what the policy looks at, kept by every event instead of counted anew.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    ends::{Ends, EndsHasher},
    growth::Growth,
    ledger::Owner,
};
use crate::{
    decode::socket::{End, Socket, SocketId, TcpState},
    memory::Interned,
    process::ProcessKey,
    sockets::Entry,
};

/// Sockets in ESTABLISHED on one port, in this network namespace, connleak's own left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortTotals {
    pub client_ends: u32,
    pub server_ends: u32,
}

impl PortTotals {
    pub fn both_ends(self) -> u32 {
        self.client_ends.saturating_add(self.server_ends)
    }
}

/// What one socket adds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Share {
    port: u16,
    end: End,
    ends: Ends,
    /// It is connleak's own, or Redis's end of such a one.
    own: bool,
    /// Adds to its port.
    established: bool,
    /// Adds to its owner.
    outstanding: bool,
    /// One for all sockets of an owner.
    owner: Arc<Owner>,
}

#[derive(Debug, Default)]
pub struct RunningCounts {
    /// Where ports are counted; everywhere if it is not known.
    netns: Option<u32>,
    shares: HashMap<SocketId, Share>,
    owners_known: Interned<Owner>,
    ends: EndsHasher,
    /// As Redis's end has them, if it is on this host.
    clients: HashSet<Ends>,
    /// Of those, connleak's own.
    own: HashSet<Ends>,
    ports: BTreeMap<u16, PortTotals>,
    owners: HashMap<(Owner, u16), Growth>,
    changed: bool,
}

impl RunningCounts {
    pub fn new(netns: Option<u32>) -> Self {
        Self {
            netns,
            ..Self::default()
        }
    }

    /// Takes over how a socket is now.
    pub fn set(&mut self, socket: &Socket, owner: Owner, now_ns: u64) {
        let share = self.share(socket, owner);
        let before = self.shares.get(&socket.id);
        if before == Some(&share) {
            return;
        }
        let before = self.shares.insert(socket.id, share.clone());
        match &before {
            Some(before) if is_move(before, &share) => {
                self.tally(before, -1, None);
                self.tally(&share, 1, None);
            }
            before => {
                if let Some(before) = before {
                    self.tally(before, -1, Some(now_ns));
                }
                self.tally(&share, 1, Some(now_ns));
            }
        }
        if let Some(before) = before
            && before.end == End::Client
            && before.ends != share.ends
        {
            self.forget_ends(&before);
        }
        if share.end == End::Client {
            self.clients.insert(share.ends);
            if share.own && self.own.insert(share.ends) {
                self.leave_out(share.ends, now_ns);
            }
        }
    }

    /// The socket is no more.
    pub fn forget(&mut self, id: SocketId, now_ns: u64) {
        if let Some(share) = self.shares.remove(&id) {
            self.tally(&share, -1, Some(now_ns));
            if share.end == End::Client {
                self.forget_ends(&share);
            }
        }
    }

    /// Takes over the whole truth; owners may have changed with the holders.
    pub fn renew<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Entry> + Clone,
        exists: impl Fn(SocketId) -> bool,
        owner: impl Fn(&Entry) -> Owner,
        lives: impl Fn(ProcessKey) -> bool,
        now_ns: u64,
    ) {
        let gone: Vec<SocketId> = self
            .shares
            .keys()
            .filter(|id| !exists(**id))
            .copied()
            .collect();
        for id in gone {
            self.forget(id, now_ns);
        }
        // Redis's ends know their clients by then.
        for end in [End::Client, End::Server] {
            for entry in entries.clone().filter(|entry| entry.end() == end) {
                self.set(&entry.socket(), owner(entry), now_ns);
            }
        }
        self.owners.retain(|(owner, _), growth| {
            growth.count() > 0 || matches!(owner, Owner::Process(process) if lives(*process))
        });
    }

    /// What is open now was opened before, at some time since its process began.
    pub fn begin(&mut self, now_ns: u64) {
        for ((owner, _), growth) in &mut self.owners {
            let count = growth.count();
            *growth = match owner {
                Owner::Process(process) => Growth::found(process.start_time_ns, now_ns, count),
                Owner::Unattributed => Growth::new(now_ns, count),
            };
        }
    }

    pub fn port(&self, port: u16) -> PortTotals {
        self.ports.get(&port).copied().unwrap_or_default()
    }

    /// Everyone with something outstanding, by port. Ends that nobody here opened are
    /// unattributed.
    pub fn owners(&self) -> impl Iterator<Item = (Owner, u16, &Growth)> {
        self.owners
            .iter()
            .map(|((owner, port), growth)| (*owner, *port, growth))
    }

    /// Whether anything changed since this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn share(&mut self, socket: &Socket, owner: Owner) -> Share {
        let (local, remote) = (socket.local, socket.remote);
        let (port, ends) = match socket.end {
            End::Client => (remote.port(), self.ends.ends(remote, local)),
            End::Server => (local.port(), self.ends.ends(local, remote)),
        };
        let is_own = || self.own.contains(&self.ends.ends(local, remote));
        let own = socket.own || (!self.own.is_empty() && is_own());
        let here = self.netns.is_none_or(|netns| netns == socket.netns);
        let established = socket.state == TcpState::Established;
        let (owner, outstanding) = match socket.end {
            End::Client => (owner, established || socket.state == TcpState::CloseWait),
            // Opened on another machine: growth that no unit here answers for.
            End::Server => (
                Owner::Unattributed,
                established && !self.clients.contains(&ends),
            ),
        };
        Share {
            port,
            end: socket.end,
            ends,
            own,
            established: established && here && !own,
            outstanding: outstanding && !own,
            owner: self.owners_known.same(&owner),
        }
    }

    /// Without a time the owner's sockets moved, they did not grow.
    fn tally(&mut self, share: &Share, by: i64, now_ns: Option<u64>) {
        self.changed = true;
        if share.established {
            let totals = self.ports.entry(share.port).or_default();
            let count = match share.end {
                End::Client => &mut totals.client_ends,
                End::Server => &mut totals.server_ends,
            };
            *count = added(*count, by);
        }
        if !share.outstanding {
            return;
        }
        let at_ns = now_ns.unwrap_or(0);
        let growth = self
            .owners
            .entry((*share.owner, share.port))
            .or_insert_with(|| Growth::new(at_ns, 0));
        match now_ns {
            Some(now_ns) => growth.set(now_ns, added(growth.count(), by)),
            None => growth.shift(by),
        }
    }

    /// Redis's end of our own connection, in case it was seen first.
    fn leave_out(&mut self, ends: Ends, now_ns: u64) {
        let found = self
            .shares
            .iter()
            .find(|(_, share)| share.end == End::Server && share.ends == ends)
            .map(|(id, share)| (*id, share.clone()));
        if let Some((id, share)) = found {
            self.tally(&share, -1, Some(now_ns));
            let left_out = Share {
                own: true,
                established: false,
                outstanding: false,
                ..share
            };
            self.shares.insert(id, left_out);
        }
    }

    fn forget_ends(&mut self, share: &Share) {
        self.clients.remove(&share.ends);
        if share.own {
            self.own.remove(&share.ends);
        }
    }
}

/// Only the owner differs.
fn is_move(before: &Share, now: &Share) -> bool {
    before.owner != now.owner
        && *before
            == Share {
                owner: Arc::clone(&before.owner),
                ..now.clone()
            }
}

fn added(count: u32, by: i64) -> u32 {
    u32::try_from((i64::from(count) + by).max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::sockets::StackRef;

    const SECOND_NS: u64 = 1_000_000_000;

    fn process(pid: u32) -> Owner {
        Owner::Process(ProcessKey {
            pid,
            start_time_ns: 1,
        })
    }

    fn socket(id: u64, end: End, own: bool) -> Socket {
        let client: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 40_000 + (id / 2) as u16));
        let server: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 6379));
        let (local, remote) = match end {
            End::Client => (client, server),
            End::Server => (server, client),
        };
        Socket {
            id: SocketId(id),
            end,
            state: TcpState::Established,
            local,
            remote,
            netns: 1,
            opener: None,
            opened_ns: Some(1),
            established_ns: None,
            released_ns: None,
            changed_ns: None,
            own,
            let_go: false,
            abandoned: false,
            no_stack: None,
        }
    }

    fn count(counts: &RunningCounts, owner: Owner) -> u32 {
        counts
            .owners()
            .filter(|(it, _, _)| *it == owner)
            .map(|(_, _, growth)| growth.count())
            .sum()
    }

    #[test]
    fn both_ends_are_counted_and_our_own_are_not() {
        for ours_first in [true, false] {
            let mut counts = RunningCounts::new(Some(1));
            counts.set(&socket(2, End::Client, false), process(7), 1);
            counts.set(&socket(3, End::Server, false), process(9), 1);
            let ours = socket(4, End::Client, true);
            let redis = socket(5, End::Server, false);
            let order = if ours_first {
                [&ours, &redis]
            } else {
                [&redis, &ours]
            };
            for end in order {
                counts.set(end, process(9), 2);
            }
            let expected = PortTotals {
                client_ends: 1,
                server_ends: 1,
            };
            assert_eq!(counts.port(6379), expected, "ours first: {ours_first}");
            assert_eq!(count(&counts, process(7)), 1);
            assert_eq!(count(&counts, Owner::Unattributed), 0);
        }
    }

    #[test]
    fn a_closed_socket_counts_no_more() {
        let mut counts = RunningCounts::new(Some(1));
        counts.set(&socket(2, End::Client, false), process(7), 1);
        let mut closing = socket(2, End::Client, false);
        closing.state = TcpState::FinWait2;
        counts.set(&closing, process(7), 2);
        assert_eq!(counts.port(6379).both_ends(), 0);
        counts.forget(SocketId(2), 3);
        assert_eq!(counts.port(6379).both_ends(), 0);
        assert_eq!(count(&counts, process(7)), 0);
    }

    #[test]
    fn a_client_elsewhere_is_unattributed() {
        let mut counts = RunningCounts::new(Some(1));
        counts.set(&socket(3, End::Server, false), process(9), 1);
        assert_eq!(count(&counts, Owner::Unattributed), 1);
        assert_eq!(counts.port(6379).server_ends, 1);
    }

    #[test]
    fn sockets_of_another_namespace_are_attributed_and_not_counted() {
        let mut counts = RunningCounts::new(Some(2));
        counts.set(&socket(2, End::Client, false), process(7), 1);
        assert_eq!(counts.port(6379).both_ends(), 0);
        assert_eq!(count(&counts, process(7)), 1);
    }

    #[test]
    fn a_heir_does_not_grow_by_what_it_inherits() {
        let mut counts = RunningCounts::new(Some(1));
        for id in 0..50 {
            counts.set(&socket(id * 2, End::Client, false), process(7), SECOND_NS);
        }
        let openers = &mut Interned::default();
        let entries: Vec<Entry> = (0..50)
            .map(|id| socket(id * 2, End::Client, false))
            .map(|socket| Entry::new(&socket, StackRef::Pending, openers))
            .collect();
        let (exists, heir, lives) = (|_| true, |_: &Entry| process(8), |_| true);
        counts.renew(entries.iter(), exists, heir, lives, 2 * SECOND_NS);
        assert_eq!(count(&counts, process(8)), 50);
        assert_eq!(count(&counts, process(7)), 0);
        let growth = counts
            .owners()
            .find(|(owner, _, _)| *owner == process(8))
            .map(|(_, _, growth)| growth.recent_per_minute(3 * SECOND_NS));
        assert_eq!(growth, Some(0.0));
    }
}
