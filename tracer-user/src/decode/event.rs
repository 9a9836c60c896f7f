//! An event: one notice of the kernel side, owned and checked.

use std::mem::offset_of;

use bytes::Bytes;
use tracer_ebpf::abi::{
    event::{
        self as abi, ConnectEvent, EventHeader, HAS_REGISTERS, InterpreterStack, ProcessEvent,
        STACK_BOUNDED, SocketEvent,
    },
    socket::SocketRecord,
};

use super::{
    interpreter,
    socket::{Comm, Socket},
    wire,
};
use crate::{
    process::ProcessKey,
    stacks::{Registers, StackSample},
};

#[derive(Clone, Debug)]
pub enum Event {
    /// connect was called; the sample is `None` where there were no user registers.
    Connect {
        socket: Socket,
        sample: Option<StackSample>,
    },
    /// A socket changed: this is how it is now.
    Changed {
        socket: Socket,
    },
    /// A socket was destroyed: this is how it was.
    Destroyed {
        socket: Socket,
        time_ns: u64,
    },
    Fork {
        parent: ProcessKey,
        child: ProcessKey,
        comm: Comm,
    },
    Exec {
        process: ProcessKey,
        comm: Comm,
    },
    Exit {
        process: ProcessKey,
        time_ns: u64,
    },
    /// A process of which nothing is known yet called exec.
    Program {
        process: ProcessKey,
    },
}

/// Bytes that are no event of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("event of {got} bytes is shorter than the {needed} that its kind {kind} needs")]
    Short {
        kind: u32,
        needed: usize,
        got: usize,
    },
    #[error("event kind {0} is unknown: the kernel side is of another version")]
    Kind(u32),
    #[error("stack copy of {claimed} bytes exceeds its event of {got} bytes")]
    Stack { claimed: usize, got: usize },
}

impl Event {
    /// Decodes one entry of the ring. The stack copy keeps sharing `bytes`.
    ///
    /// # Errors
    ///
    /// The bytes are no event of this version.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let header: EventHeader = read(bytes, 0)?;
        match header.kind {
            abi::CONNECT => connect(bytes),
            abi::SOCKET => {
                let event: SocketEvent = read(bytes, header.kind)?;
                Ok(Self::Changed {
                    socket: Socket::from_record(event.socket, &event.record),
                })
            }
            abi::DESTROYED => {
                let event: SocketEvent = read(bytes, header.kind)?;
                Ok(Self::Destroyed {
                    socket: Socket::from_record(event.socket, &event.record),
                    time_ns: header.time_ns,
                })
            }
            abi::FORK | abi::EXEC | abi::EXIT | abi::PROGRAM => {
                let event: ProcessEvent = read(bytes, header.kind)?;
                Ok(process(&event))
            }
            kind => Err(DecodeError::Kind(kind)),
        }
    }
}

impl Event {
    /// The socket that it tells of.
    pub fn socket(&self) -> Option<&Socket> {
        match self {
            Self::Connect { socket, .. }
            | Self::Changed { socket }
            | Self::Destroyed { socket, .. } => Some(socket),
            Self::Fork { .. } | Self::Exec { .. } | Self::Exit { .. } | Self::Program { .. } => {
                None
            }
        }
    }

    /// When it happened, as far as it says.
    pub fn time_ns(&self) -> Option<u64> {
        match self {
            Self::Connect { socket, .. } | Self::Changed { socket } => {
                [socket.opened_ns, socket.changed_ns, socket.released_ns]
                    .into_iter()
                    .flatten()
                    .max()
            }
            Self::Destroyed { time_ns, .. } | Self::Exit { time_ns, .. } => Some(*time_ns),
            Self::Fork { .. } | Self::Exec { .. } | Self::Program { .. } => None,
        }
    }
}

fn read<T: wire::Plain>(bytes: &[u8], kind: u32) -> Result<T, DecodeError> {
    wire::read(bytes).ok_or(DecodeError::Short {
        kind,
        needed: size_of::<T>(),
        got: bytes.len(),
    })
}

/// What stands before the stack copy.
const CONNECT_FIXED_BYTES: usize = size_of::<ConnectEvent>() + size_of::<InterpreterStack>();
/// Of a connect event, what a recording keeps: all up to its flags.
const CONNECT_RECORDED_BYTES: usize = offset_of!(ConnectEvent, flags) + size_of::<u32>();

/// An event as a recording keeps it: whatever was copied from the process's memory is cut off.
pub(super) fn without_stack(bytes: &[u8]) -> Vec<u8> {
    let kind = bytes.first_chunk().copied().map(u32::from_le_bytes);
    let kept_bytes = match kind {
        Some(abi::CONNECT) => CONNECT_RECORDED_BYTES,
        Some(abi::SOCKET | abi::DESTROYED) => size_of::<SocketEvent>(),
        _ => size_of::<ProcessEvent>(),
    };
    let mut kept = bytes[..bytes.len().min(kept_bytes)].to_vec();
    let stack_bytes = offset_of!(ConnectEvent, stack_bytes);
    if let Some(claimed) = kept.get_mut(stack_bytes..stack_bytes + size_of::<u32>()) {
        claimed.fill(0);
    }
    kept
}

/// An event of a recording with zeroes where this version's kernel side says more.
pub(super) fn with_room(mut bytes: Vec<u8>) -> Vec<u8> {
    let is_connect = bytes.first_chunk().copied().map(u32::from_le_bytes) == Some(abi::CONNECT);
    if is_connect && bytes.len() == CONNECT_RECORDED_BYTES {
        bytes.resize(CONNECT_FIXED_BYTES, 0);
    }
    bytes
}

/// A notice of a socket as the kernel side would send it now that the socket's record is `record`,
/// or that it is destroyed. `None` for bytes that are no notice of a socket.
pub fn renewed(notice: &[u8], record: Option<&SocketRecord>, now_ns: u64) -> Option<Bytes> {
    let mut event: SocketEvent = wire::read(notice)?;
    event.header.kind = match record {
        Some(_) => abi::SOCKET,
        None => abi::DESTROYED,
    };
    event.header.length_bytes = size_of::<SocketEvent>() as u32;
    event.header.time_ns = now_ns;
    event.record = record.copied().unwrap_or(event.record);
    Some(Bytes::copy_from_slice(wire::bytes(&event)))
}

fn connect(bytes: &Bytes) -> Result<Event, DecodeError> {
    let event: ConnectEvent = read(bytes, abi::CONNECT)?;
    let start = CONNECT_FIXED_BYTES;
    let claimed = event.stack_bytes as usize;
    if bytes
        .len()
        .checked_sub(start)
        .is_none_or(|room| claimed > room)
    {
        return Err(DecodeError::Stack {
            claimed,
            got: bytes.len(),
        });
    }
    let sample = (event.flags & HAS_REGISTERS != 0).then(|| {
        // The copy begins at the page of sp; what lies below sp is no stack.
        let below = event.sp.wrapping_sub(event.stack_base);
        let below = usize::try_from(below).unwrap_or(claimed).min(claimed);
        StackSample {
            registers: Registers {
                ip: event.ip,
                sp: event.sp,
                fp: event.fp,
                lr: event.lr,
            },
            copy: bytes.slice(start + below..start + claimed),
            bounded: event.flags & STACK_BOUNDED != 0,
            interpreter: interpreter::frames(&event, &bytes[size_of::<ConnectEvent>()..start]),
        }
    });
    Ok(Event::Connect {
        socket: Socket::from_record(event.socket.socket, &event.socket.record),
        sample,
    })
}

fn process(event: &ProcessEvent) -> Event {
    let process = ProcessKey {
        pid: event.tgid,
        start_time_ns: event.start_ns,
    };
    match event.header.kind {
        abi::FORK => Event::Fork {
            parent: ProcessKey {
                pid: event.parent_tgid,
                start_time_ns: event.parent_start_ns,
            },
            child: process,
            comm: Comm(event.comm),
        },
        abi::EXEC => Event::Exec {
            process,
            comm: Comm(event.comm),
        },
        abi::PROGRAM => Event::Program { process },
        _ => Event::Exit {
            process,
            time_ns: event.header.time_ns,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_event_names_its_kind_and_lengths() {
        let mut bytes = vec![0; 20];
        bytes[0] = 2;
        let error = Event::decode(&bytes.into()).expect_err("20 bytes are no socket event");
        assert_eq!(
            error,
            DecodeError::Short {
                kind: 2,
                needed: 136,
                got: 20
            }
        );
    }

    #[test]
    fn stack_longer_than_its_event_is_refused() {
        let mut bytes = vec![0; size_of::<ConnectEvent>() + size_of::<InterpreterStack>() + 8];
        bytes[0] = 1;
        bytes[176..180].copy_from_slice(&9_u32.to_le_bytes());
        let error = Event::decode(&bytes.into()).expect_err("9 bytes of stack do not fit");
        assert!(matches!(error, DecodeError::Stack { claimed: 9, .. }));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(kind in 0_u8..8, mut bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            let _ = Event::decode(&bytes.into());
        }
    }
}
