//! An entry of the table: one socket and everything known of it, in as few bytes as that takes. A
//! daemon keeps one for every socket there is.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU64,
    sync::Arc,
};

use smallvec::SmallVec;

use crate::{
    decode::{
        open_file::{Holder, OpenFile},
        socket::{End, NoStack, Opener, Socket, SocketId, TcpState},
    },
    memory::Interned,
    process::ProcessKey,
    stacks::Stack,
};

/// What is known of a socket's connect stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StackRef {
    /// Taken, not yet unwound.
    Pending,
    Known(Arc<Stack>),
    None(NoStack),
    /// There is none, and this is not where it would be: a server end.
    Inapplicable,
}

impl StackRef {
    /// Are they one and the same stack, or none for one cause? Two stacks may also be equal.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Known(a), Self::Known(b)) => Arc::ptr_eq(a, b),
            (Self::None(a), Self::None(b)) => a == b,
            (Self::Pending, Self::Pending) | (Self::Inapplicable, Self::Inapplicable) => true,
            _ => false,
        }
    }
}

/// Queues and traffic, as the last walk over the open files found them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub receive_queue_bytes: u32,
    pub send_queue_bytes: u32,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub idle_jiffies: u32,
}

impl From<&OpenFile> for Traffic {
    fn from(file: &OpenFile) -> Self {
        Self {
            receive_queue_bytes: file.receive_queue_bytes,
            send_queue_bytes: file.send_queue_bytes,
            bytes_received: file.bytes_received,
            bytes_sent: file.bytes_sent,
            idle_jiffies: file.idle_jiffies,
        }
    }
}

/// A holder of a socket, and through which descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    // A `ProcessKey` and a descriptor, without the bytes between them.
    start_time_ns: u64,
    pid: u32,
    pub fd: u32,
}

impl Held {
    pub fn process(self) -> ProcessKey {
        ProcessKey {
            pid: self.pid,
            start_time_ns: self.start_time_ns,
        }
    }
}

impl From<&Holder> for Held {
    fn from(holder: &Holder) -> Self {
        Self {
            start_time_ns: holder.process.start_time_ns,
            pid: holder.process.pid,
            fd: holder.fd,
        }
    }
}

/// One socket and everything known of it.
#[derive(Clone, Debug)]
pub struct Entry {
    id: SocketId,
    // 0 is the time at which nothing happened.
    opened_ns: Option<NonZeroU64>,
    established_ns: Option<NonZeroU64>,
    released_ns: Option<NonZeroU64>,
    changed_ns: Option<NonZeroU64>,
    /// One for all sockets of a thread.
    opener: Option<Arc<Opener>>,
    stack: StackRef,
    /// As of the last walk; empty before the first, and where no process holds it. Most have one.
    holders: SmallVec<[Held; 1]>,
    traffic: Traffic,
    /// A walk found it.
    has_traffic: bool,
    local: Address,
    remote: Address,
    netns: u32,
    end: End,
    state: TcpState,
    no_stack: Option<NoStack>,
    own: bool,
    let_go: bool,
    abandoned: bool,
}

impl Entry {
    pub fn new(socket: &Socket, stack: StackRef, openers: &mut Interned<Opener>) -> Self {
        let mut entry = Self {
            id: socket.id,
            opened_ns: None,
            established_ns: None,
            released_ns: None,
            changed_ns: None,
            opener: None,
            stack,
            holders: SmallVec::new(),
            traffic: Traffic::default(),
            has_traffic: false,
            local: socket.local.into(),
            remote: socket.remote.into(),
            netns: socket.netns,
            end: socket.end,
            state: socket.state,
            no_stack: None,
            own: false,
            let_go: false,
            abandoned: false,
        };
        entry.renew(socket, openers);
        entry
    }

    /// The socket is like this from here on. Its stack, its holders and its traffic stay.
    pub fn renew(&mut self, socket: &Socket, openers: &mut Interned<Opener>) {
        let time = |ns: Option<u64>| ns.and_then(NonZeroU64::new);
        self.id = socket.id;
        self.opened_ns = time(socket.opened_ns);
        self.established_ns = time(socket.established_ns);
        self.released_ns = time(socket.released_ns);
        self.changed_ns = time(socket.changed_ns);
        if self.opener() != socket.opener.as_ref() {
            self.opener = socket.opener.as_ref().map(|opener| openers.same(opener));
        }
        self.local = socket.local.into();
        self.remote = socket.remote.into();
        self.netns = socket.netns;
        self.end = socket.end;
        self.state = socket.state;
        self.no_stack = socket.no_stack;
        self.own = socket.own;
        self.let_go = socket.let_go;
        self.abandoned = socket.abandoned;
    }

    /// The socket as it was told.
    pub fn socket(&self) -> Socket {
        Socket {
            id: self.id,
            end: self.end,
            state: self.state,
            local: self.local(),
            remote: self.remote(),
            netns: self.netns,
            opener: self.opener().cloned(),
            opened_ns: self.opened_ns(),
            established_ns: self.established_ns(),
            released_ns: self.released_ns(),
            changed_ns: self.changed_ns(),
            own: self.own,
            let_go: self.let_go,
            abandoned: self.abandoned,
            no_stack: self.no_stack,
        }
    }

    pub(super) fn renumber(&mut self, id: SocketId) {
        self.id = id;
    }

    pub(super) fn set_stack(&mut self, stack: StackRef) {
        self.stack = stack;
    }

    pub(super) fn clear_holders(&mut self) {
        self.holders.clear();
    }

    /// A walk found it open.
    pub(super) fn find(&mut self, file: &OpenFile) {
        // Only of client ends it is told.
        if file.end == End::Client {
            self.set_traffic(file.into());
        }
        if let Some(holder) = &file.holder {
            self.holders.push(holder.into());
        }
    }

    pub fn set_traffic(&mut self, traffic: Traffic) {
        self.traffic = traffic;
        self.has_traffic = true;
    }

    pub fn id(&self) -> SocketId {
        self.id
    }

    pub fn end(&self) -> End {
        self.end
    }

    pub fn state(&self) -> TcpState {
        self.state
    }

    pub fn local(&self) -> SocketAddr {
        self.local.into()
    }

    pub fn remote(&self) -> SocketAddr {
        self.remote.into()
    }

    /// The oldest first, and of one age as their addresses are.
    pub fn order(&self) -> impl Ord + use<> {
        (self.opened_ns, self.local)
    }

    pub fn netns(&self) -> u32 {
        self.netns
    }

    pub fn opener(&self) -> Option<&Opener> {
        self.opener.as_deref()
    }

    pub fn opened_ns(&self) -> Option<u64> {
        self.opened_ns.map(NonZeroU64::get)
    }

    pub fn established_ns(&self) -> Option<u64> {
        self.established_ns.map(NonZeroU64::get)
    }

    pub fn released_ns(&self) -> Option<u64> {
        self.released_ns.map(NonZeroU64::get)
    }

    pub fn changed_ns(&self) -> Option<u64> {
        self.changed_ns.map(NonZeroU64::get)
    }

    /// Opened by connleak itself.
    pub fn is_own(&self) -> bool {
        self.own
    }

    pub fn is_let_go(&self) -> bool {
        self.let_go
    }

    pub fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    pub fn stack(&self) -> &StackRef {
        &self.stack
    }

    pub fn holders(&self) -> &[Held] {
        &self.holders
    }

    /// `None` before a walk found it.
    pub fn traffic(&self) -> Option<Traffic> {
        self.has_traffic.then_some(self.traffic)
    }
}

/// A `SocketAddr` without flow and scope, which the kernel side does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Address {
    is_v6: bool,
    /// An IPv4 address in its first four bytes.
    ip: [u8; 16],
    port: u16,
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let (ip, is_v6) = match address.ip() {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                ([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], false)
            }
            IpAddr::V6(v6) => (v6.octets(), true),
        };
        Self {
            ip,
            port: address.port(),
            is_v6,
        }
    }
}

impl From<Address> for SocketAddr {
    fn from(Address { ip, port, is_v6 }: Address) -> Self {
        let ip = if is_v6 {
            IpAddr::from(Ipv6Addr::from(ip))
        } else {
            IpAddr::from([ip[0], ip[1], ip[2], ip[3]])
        };
        Self::new(ip, port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::socket::Comm;

    #[test]
    fn entry_says_of_a_socket_what_it_was_told() {
        let opener = Opener {
            process: ProcessKey {
                pid: 7,
                start_time_ns: 8,
            },
            tid: 9,
            uid: 10,
            comm: Comm(*b"a thread's name."),
        };
        let told = Socket {
            id: SocketId(u64::MAX),
            end: End::Server,
            state: TcpState::CloseWait,
            local: "192.0.2.1:6379".parse().expect("an address"),
            remote: "[2001:db8::1]:65535".parse().expect("an address"),
            netns: 11,
            opener: Some(opener.clone()),
            opened_ns: Some(1),
            established_ns: Some(u64::MAX),
            released_ns: None,
            changed_ns: Some(3),
            own: true,
            let_go: false,
            abandoned: true,
            no_stack: Some(NoStack::Missed),
        };
        let turned = Socket {
            id: SocketId(1),
            end: End::Client,
            state: TcpState::Established,
            // An IPv6 socket's IPv4 address is no IPv4 socket's.
            local: "[::ffff:192.0.2.1]:1".parse().expect("an address"),
            remote: "[::]:0".parse().expect("an address"),
            netns: 0,
            opener: None,
            opened_ns: None,
            established_ns: None,
            released_ns: Some(2),
            changed_ns: None,
            own: false,
            let_go: true,
            abandoned: false,
            no_stack: None,
        };
        let openers = &mut Interned::default();
        let mut entry = Entry::new(&told, StackRef::Pending, openers);
        assert_eq!(entry.socket(), told);
        entry.renew(&turned, openers);
        assert_eq!(entry.socket(), turned);
        entry.renew(&told, openers);
        assert_eq!(entry.socket(), told);
        assert_eq!(entry.opener(), Some(&opener));
    }
}
