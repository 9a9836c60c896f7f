//! The socket table: every watched socket that is not yet destroyed.

use std::{collections::HashMap, sync::Arc};

use indexmap::IndexMap;

use super::entry::{Entry, StackRef};
use crate::{
    decode::{
        Event,
        open_file::{Holder, OpenFile},
        socket::{End, NoStack, Opener, Socket, SocketId, TcpState},
    },
    memory::Interned,
    stacks::Stack,
};

/// The table mirrors the kernel's `SOCKETS` map: every event carries the socket as it is after
/// it, so that whoever misses an event is right again with the next, or with the next reconcile.
#[derive(Debug, Default)]
pub struct SocketTable {
    /// One beside the other: a hash table of its own would leave up to half of its room empty.
    entries: IndexMap<SocketId, Entry>,
    openers: Interned<Opener>,
    /// Holders of listening sockets: the owners of server ends that no accept hook names.
    listeners: HashMap<SocketId, (OpenFile, Vec<Holder>)>,
    /// What was open when its last holder ended, as it was before; `None` if nobody asks for it.
    abandoned: Option<Vec<Entry>>,
}

/// Beyond this, abandoned sockets are no longer kept: who leaves so many knows by then.
const ABANDONED_MAX: usize = 65_536;

impl SocketTable {
    /// Takes over what an event says. True if the set of sockets or a state changed.
    pub fn apply(&mut self, event: &Event) -> bool {
        match event {
            Event::Connect { socket, sample } => {
                let stack = match (sample, socket.no_stack) {
                    (Some(_), _) => StackRef::Pending,
                    (None, Some(cause)) => StackRef::None(cause),
                    (None, None) => StackRef::None(NoStack::KernelWorker),
                };
                self.put(socket, stack);
                true
            }
            Event::Changed { socket } => self.change(socket),
            Event::Destroyed { socket, .. } => {
                self.keep_abandoned(socket);
                self.remove(socket.id, socket.opened_ns)
            }
            Event::Fork { .. }
            | Event::Exec { .. }
            | Event::Exit { .. }
            | Event::Program { .. } => false,
        }
    }

    /// Takes over a record of the kernel's map. True if it differs from what was here.
    pub fn change(&mut self, socket: &Socket) -> bool {
        self.keep_abandoned(socket);
        if let Some(entry) = self.entries.get_mut(&socket.id)
            && is_same_life(entry, socket)
        {
            let changed = entry.socket() != *socket;
            if changed {
                entry.renew(socket, &mut self.openers);
            }
            return changed;
        }
        let stack = match (socket.end, socket.no_stack) {
            (_, Some(cause)) => StackRef::None(cause),
            (End::Server, None) => StackRef::Inapplicable,
            // Its connect event, and with it the stack, was lost.
            (End::Client, None) => StackRef::None(NoStack::RingFull),
        };
        self.put(socket, stack);
        true
    }

    fn put(&mut self, socket: &Socket, stack: StackRef) {
        let entry = Entry::new(socket, stack, &mut self.openers);
        self.entries.insert(socket.id, entry);
    }

    /// From now on remembers what was open when its last holder ended.
    pub fn remember_abandoned(&mut self) {
        self.abandoned = Some(Vec::new());
    }

    pub fn abandoned(&self) -> impl Iterator<Item = &Entry> {
        self.abandoned.iter().flatten()
    }

    /// Keeps it as it was known before, if `socket` is the first word of its being abandoned.
    fn keep_abandoned(&mut self, socket: &Socket) {
        let Some(kept) = self.abandoned.as_mut().filter(|_| socket.abandoned) else {
            return;
        };
        if let Some(entry) = self.entries.get(&socket.id)
            && is_same_life(entry, socket)
            && !entry.is_abandoned()
            && kept.len() < ABANDONED_MAX
        {
            kept.push(entry.clone());
        }
    }

    /// Takes over sockets of whatever table, under numbers of their own: an address is used
    /// again, and two of them may have had the same.
    pub fn of_entries(entries: impl Iterator<Item = Entry>) -> Self {
        let numbered = (0..).map(SocketId).zip(entries);
        Self {
            entries: numbered
                .map(|(id, mut entry)| {
                    entry.renumber(id);
                    (id, entry)
                })
                .collect(),
            ..Self::default()
        }
    }

    /// Removes a socket, unless its address belongs to a younger one by now.
    pub fn remove(&mut self, id: SocketId, opened_ns: Option<u64>) -> bool {
        match self.entries.get(&id) {
            Some(entry) if entry.opened_ns() <= opened_ns => {
                self.entries.swap_remove(&id).is_some()
            }
            _ => false,
        }
    }

    /// Hands the socket that was opened at `opened_ns` its unwound stack.
    pub fn set_stack(&mut self, id: SocketId, opened_ns: Option<u64>, stack: Arc<Stack>) {
        if let Some(entry) = self.entries.get_mut(&id)
            && entry.opened_ns() == opened_ns
        {
            entry.set_stack(StackRef::Known(Arc::clone(&stack)));
        }
        let mut kept = self.abandoned.iter_mut().flatten();
        if let Some(entry) = kept.find(|entry| entry.id() == id && entry.opened_ns() == opened_ns) {
            entry.set_stack(StackRef::Known(stack));
        }
    }

    /// Says why a socket's stack will never come.
    pub fn set_no_stack(&mut self, id: SocketId, cause: NoStack) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.set_stack(StackRef::None(cause));
        }
    }

    /// A new walk over the open files begins: who holds what, it will tell.
    pub fn forget_holders(&mut self) {
        for entry in self.entries.values_mut() {
            entry.clear_holders();
        }
        self.listeners.clear();
    }

    /// Takes over who holds a socket, and how much waits in its queues.
    pub fn hold(&mut self, file: &OpenFile) {
        if file.state == TcpState::Listen {
            return self.listen(file);
        }
        if let Some(entry) = self.entries.get_mut(&file.id) {
            entry.find(file);
        }
    }

    /// As [`SocketTable::hold`], where of a socket nothing else will be known.
    pub fn find(&mut self, file: &OpenFile) {
        let Some(socket) = Socket::from_open_file(file) else {
            return self.listen(file);
        };
        let openers = &mut self.openers;
        let entry = self.entries.entry(file.id).or_insert_with(|| {
            let stack = StackRef::None(NoStack::Seeded);
            Entry::new(&socket, stack, openers)
        });
        entry.find(file);
    }

    fn listen(&mut self, file: &OpenFile) {
        let listener = self.listeners.entry(file.id);
        let (_, holders) = listener.or_insert_with(|| (file.clone(), Vec::new()));
        holders.extend(file.holder.clone());
    }

    /// The process that listens where this server end came in.
    pub fn listener_of(&self, entry: &Entry) -> Option<&Holder> {
        let local = entry.local();
        self.listeners
            .values()
            .filter(|(listener, _)| {
                listener.netns == entry.netns()
                    && listener.local.port() == local.port()
                    && (listener.local.ip().is_unspecified()
                        || listener.local.ip().to_canonical() == local.ip().to_canonical())
            })
            .flat_map(|(_, holders)| holders)
            .min_by_key(|holder| (holder.process.start_time_ns, holder.process.pid))
    }

    /// Every holder of a listening socket on a watched port.
    pub fn listeners(&self) -> impl Iterator<Item = &Holder> {
        self.listeners.values().flat_map(|(_, holders)| holders)
    }

    pub fn get(&self, id: SocketId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// The entry and its place among all, which holds until one is removed.
    pub(super) fn placed(&self, id: SocketId) -> Option<(usize, &Entry)> {
        let (place, _, entry) = self.entries.get_full(&id)?;
        Some((place, entry))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Entry> + Clone {
        self.entries.values()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Is `now` the socket that `known` is, and not another one at the same address?
fn is_same_life(known: &Entry, now: &Socket) -> bool {
    known.opened_ns() == now.opened_ns && known.end() == now.end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::socket::{Comm, Opener};
    use crate::process::ProcessKey;

    fn socket(id: u64, opened_ns: u64) -> Socket {
        Socket {
            id: SocketId(id),
            end: End::Client,
            state: TcpState::SynSent,
            local: "127.0.0.1:40000".parse().expect("an address"),
            remote: "127.0.0.1:6379".parse().expect("an address"),
            netns: 1,
            opener: Some(Opener {
                process: ProcessKey::default(),
                tid: 1,
                uid: 0,
                comm: Comm::default(),
            }),
            opened_ns: Some(opened_ns),
            established_ns: None,
            released_ns: None,
            changed_ns: None,
            own: false,
            let_go: false,
            abandoned: false,
            no_stack: None,
        }
    }

    #[test]
    fn late_destroy_spares_a_younger_socket_at_the_same_address() {
        let mut table = SocketTable::default();
        table.change(&socket(1, 200));
        assert!(!table.remove(SocketId(1), Some(100)));
        assert_eq!(table.len(), 1);
        assert!(table.remove(SocketId(1), Some(200)));
        assert!(table.is_empty());
    }

    #[test]
    fn stack_of_an_older_socket_does_not_reach_a_younger_one() {
        let mut table = SocketTable::default();
        table.change(&socket(1, 200));
        table.set_stack(SocketId(1), Some(100), Arc::default());
        let entry = table.get(SocketId(1)).expect("it is there");
        assert!(!matches!(entry.stack(), StackRef::Known(_)));
    }

    #[test]
    fn socket_whose_connect_was_lost_says_so() {
        let mut table = SocketTable::default();
        table.change(&socket(1, 200));
        let entry = table.get(SocketId(1)).expect("it is there");
        assert_eq!(*entry.stack(), StackRef::None(NoStack::RingFull));
    }
}
