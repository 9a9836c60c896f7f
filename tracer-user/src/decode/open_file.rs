//! An open file: a watched socket as one process holds it through one file descriptor.

use std::net::SocketAddr;

use bytes::Bytes;
use tracer_ebpf::abi::open_file::OpenFile as Line;

use super::{
    event::DecodeError,
    socket::{Comm, End, SocketId, TcpState, address},
    wire,
};
use crate::process::ProcessKey;

/// Who holds a socket, and through which descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub process: ProcessKey,
    pub fd: u32,
    pub comm: Comm,
}

/// One line of an iterator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFile {
    pub id: SocketId,
    pub end: End,
    pub state: TcpState,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub netns: u32,
    /// `None` where the line comes from the kernel's own list of sockets.
    pub holder: Option<Holder>,
    /// What follows is of client ends: zeroes else.
    pub receive_queue_bytes: u32,
    pub send_queue_bytes: u32,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub idle_jiffies: u32,
    /// (jiffies, CLOCK_MONOTONIC) when the line was written.
    pub kernel_time: (u64, u64),
}

/// What a walk found, decoded one line at a time: there is one for every socket, and more where
/// several processes hold it.
#[derive(Clone, Debug)]
pub struct OpenFiles(Bytes);

impl OpenFiles {
    /// # Errors
    ///
    /// The last line is cut short.
    pub fn new(bytes: Bytes) -> Result<Self, DecodeError> {
        match bytes.len() % size_of::<Line>() {
            0 => Ok(Self(bytes)),
            got => Err(DecodeError::Short {
                kind: 0,
                needed: size_of::<Line>(),
                got,
            }),
        }
    }

    /// As the iterator wrote it.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    pub fn files(&self, ports: &[u16]) -> impl Iterator<Item = OpenFile> {
        files(&self.0, ports)
    }

    pub fn sockets(&self) -> impl Iterator<Item = SocketId> {
        sockets(&self.0)
    }
}

/// The open files of whole lines; the watched `ports` say which end is the watched one.
pub fn files(lines_of_walk: &[u8], ports: &[u16]) -> impl Iterator<Item = OpenFile> {
    lines(lines_of_walk).map(|line| from_line(&line, ports))
}

/// The sockets of whole lines.
pub fn sockets(lines_of_walk: &[u8]) -> impl Iterator<Item = SocketId> {
    lines(lines_of_walk).map(|line| SocketId(line.socket))
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = Line> {
    bytes.chunks_exact(size_of::<Line>()).filter_map(wire::read)
}

fn from_line(line: &Line, ports: &[u16]) -> OpenFile {
    let holder = (line.holder_tgid != 0).then_some(Holder {
        process: ProcessKey {
            pid: line.holder_tgid,
            start_time_ns: line.holder_start_ns,
        },
        fd: line.fd,
        comm: Comm(line.holder_comm),
    });
    OpenFile {
        id: SocketId(line.socket),
        // As the filter decides in the kernel: a watched remote port comes first.
        end: if ports.contains(&line.remote_port) {
            End::Client
        } else {
            End::Server
        },
        state: TcpState::from_kernel(line.state),
        local: address(line.family, &line.local_addr, line.local_port),
        remote: address(line.family, &line.remote_addr, line.remote_port),
        netns: line.netns,
        holder,
        receive_queue_bytes: line.receive_queue_bytes,
        send_queue_bytes: line.send_queue_bytes,
        bytes_received: line.bytes_received,
        bytes_sent: line.bytes_sent,
        idle_jiffies: line.idle_jiffies,
        kernel_time: (line.jiffies, line.monotonic_ns),
    }
}
