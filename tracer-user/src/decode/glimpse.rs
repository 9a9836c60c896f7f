//! A glimpse: of a socket's notice no more than it takes to count one that is gone, read where the
//! notice lies.

use tracer_ebpf::abi::{
    event::{CONNECT, DESTROYED, EventHeader, SOCKET, SocketEvent},
    socket::{OWN, SERVER_END},
};

use super::{
    socket::{End, Opener, SocketId},
    wire,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glimpse {
    pub id: SocketId,
    pub opened_ns: u64,
    pub end: End,
    /// `None` where it is not known, or connleak itself.
    pub opener: Option<Opener>,
    pub is_destroyed: bool,
    /// A stack copy may come with it.
    pub is_connect: bool,
}

impl Glimpse {
    /// `None` where the entry of the ring tells of no socket, or is too short for one.
    pub fn of(entry: &[u8]) -> Option<Self> {
        let header: EventHeader = wire::read(entry)?;
        // A connect event begins with a socket event.
        if ![CONNECT, SOCKET, DESTROYED].contains(&header.kind) {
            return None;
        }
        let SocketEvent { socket, record, .. } = wire::read(entry)?;
        Some(Self {
            id: SocketId(socket),
            opened_ns: record.opened_ns,
            end: match record.flags & SERVER_END {
                0 => End::Client,
                _ => End::Server,
            },
            opener: Opener::from_record(&record).filter(|_| record.flags & OWN == 0),
            is_destroyed: header.kind == DESTROYED,
            is_connect: header.kind == CONNECT,
        })
    }
}

#[cfg(test)]
mod tests {
    use tracer_ebpf::abi::{event::EXIT, socket::SocketRecord};

    use super::*;

    fn event(kind: u32, flags: u8) -> Vec<u8> {
        let header = EventHeader {
            kind,
            length_bytes: size_of::<SocketEvent>() as u32,
            time_ns: 9,
        };
        let record = SocketRecord {
            opened_ns: 5,
            opener_tgid: 3,
            flags,
            ..SocketRecord::ZERO
        };
        wire::bytes(&SocketEvent {
            header,
            socket: 7,
            record,
        })
        .to_vec()
    }

    #[test]
    fn a_glimpse_is_had_of_whatever_tells_of_a_socket() {
        for kind in [CONNECT, SOCKET, DESTROYED] {
            let glimpse = Glimpse::of(&event(kind, 0)).expect("a socket");
            assert_eq!((glimpse.id, glimpse.opened_ns), (SocketId(7), 5));
            assert_eq!(glimpse.opener.map(|opener| opener.process.pid), Some(3));
            assert_eq!(glimpse.is_connect, kind == CONNECT);
            assert_eq!(glimpse.is_destroyed, kind == DESTROYED);
        }
        assert_eq!(Glimpse::of(&event(EXIT, 0)), None);
        assert_eq!(Glimpse::of(&event(SOCKET, 0)[..40]), None);
    }

    #[test]
    fn connleak_itself_is_no_opener() {
        let glimpse = Glimpse::of(&event(SOCKET, OWN | SERVER_END)).expect("a socket");
        assert_eq!((glimpse.opener, glimpse.end), (None, End::Server));
    }
}
