//! A socket as the kernel side describes it: who opened it, both its ends, and its times.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use serde::{Deserialize, Serialize};
use tracer_ebpf::abi::socket::{
    ABANDONED, KERNEL_WORKER, LET_GO, OWN, SEEDED, SERVER_END, STACK_LOST, STACK_MISSED,
    STACK_SPARED, SocketRecord,
};

use super::open_file::OpenFile;
use crate::process::ProcessKey;

/// The address of a `struct sock`. It is used again after the socket's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SocketId(pub u64);

/// States of TCP, as the kernel names them (include/net/tcp_states.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TcpState {
    Established,
    SynSent,
    SynRecv,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    /// A number that this table does not know.
    Unknown,
}

impl TcpState {
    pub fn from_kernel(state: u8) -> Self {
        match state {
            1 => Self::Established,
            2 => Self::SynSent,
            3 | 12 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            _ => Self::Unknown,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait1 => "FIN_WAIT1",
            Self::FinWait2 => "FIN_WAIT2",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// Which end of the connection has the watched port: the other one, or this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The remote port is watched: an application's connection to Redis.
    Client,
    /// The local port is watched: Redis's own end of it.
    Server,
}

/// A kernel `comm`, kept as it came: every notice carries one, and hardly any is read.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Comm(pub [u8; 16]);

impl fmt::Display for Comm {
    /// Up to its NUL; bytes that are no UTF-8 are replaced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.iter().position(|&byte| byte == 0);
        let bytes = &self.0[..end.unwrap_or(self.0.len())];
        f.write_str(&String::from_utf8_lossy(bytes))
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// Who called connect, or for a server end accept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Opener {
    pub process: ProcessKey,
    pub tid: u32,
    pub uid: u32,
    /// The thread's, cleaned of control characters only when it is shown.
    pub comm: Comm,
}

/// Why a socket has no stack, where the kernel side knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoStack {
    Seeded,
    RingFull,
    /// Too many stacks waited to be unwound.
    QueueFull,
    Spared,
    /// connect's program was left out, because it ran on that CPU already.
    Missed,
    KernelWorker,
}

/// One watched socket. Times are nanoseconds of CLOCK_BOOTTIME; `None` has not happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    pub id: SocketId,
    pub end: End,
    pub state: TcpState,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub netns: u32,
    /// `None` where it was opened before tracing started, or by a hook that was lost.
    pub opener: Option<Opener>,
    /// `None` where it was opened before tracing started.
    pub opened_ns: Option<u64>,
    pub established_ns: Option<u64>,
    /// The application let go; what lingers is the kernel's.
    pub released_ns: Option<u64>,
    pub changed_ns: Option<u64>,
    /// Opened by connleak itself: never counted.
    pub own: bool,
    /// Closed or shut down, by whatever process held it.
    pub let_go: bool,
    /// It was open when the last process that held it ended.
    pub abandoned: bool,
    pub no_stack: Option<NoStack>,
}

impl Opener {
    pub fn from_record(record: &SocketRecord) -> Option<Self> {
        (record.opener_tgid != 0).then_some(Self {
            process: ProcessKey {
                pid: record.opener_tgid,
                start_time_ns: record.opener_start_ns,
            },
            tid: record.opener_tid,
            uid: record.opener_uid,
            comm: Comm(record.opener_comm),
        })
    }
}

impl Socket {
    pub fn from_record(id: u64, record: &SocketRecord) -> Self {
        let has = |flags: u8| record.flags & flags == flags;
        let no_stack = [
            (SEEDED, NoStack::Seeded),
            (KERNEL_WORKER, NoStack::KernelWorker),
            // Of two flags, so before each of them.
            (STACK_MISSED, NoStack::Missed),
            (STACK_LOST, NoStack::RingFull),
            (STACK_SPARED, NoStack::Spared),
        ]
        .into_iter()
        .find_map(|(flag, cause)| has(flag).then_some(cause));
        Self {
            id: SocketId(id),
            end: if has(SERVER_END) {
                End::Server
            } else {
                End::Client
            },
            state: TcpState::from_kernel(record.state),
            local: address(record.family, &record.local_addr, record.local_port),
            remote: address(record.family, &record.remote_addr, record.remote_port),
            netns: record.netns,
            opener: Opener::from_record(record),
            opened_ns: time(record.opened_ns),
            established_ns: time(record.established_ns),
            released_ns: time(record.released_ns),
            changed_ns: time(record.changed_ns),
            own: has(OWN),
            let_go: has(LET_GO),
            abandoned: has(ABANDONED),
            no_stack,
        }
    }

    /// A socket that was only ever seen open: no opener, no times. `None` for a listener.
    pub fn from_open_file(file: &OpenFile) -> Option<Self> {
        (file.state != TcpState::Listen).then_some(Self {
            id: file.id,
            end: file.end,
            state: file.state,
            local: file.local,
            remote: file.remote,
            netns: file.netns,
            opener: None,
            opened_ns: None,
            established_ns: None,
            released_ns: None,
            changed_ns: None,
            own: false,
            let_go: false,
            abandoned: false,
            no_stack: Some(NoStack::Seeded),
        })
    }
}

fn time(ns: u64) -> Option<u64> {
    (ns != 0).then_some(ns)
}

const AF_INET6: u16 = 10;

pub(super) fn address(family: u16, bytes: &[u8; 16], port: u16) -> SocketAddr {
    let ip = if family == AF_INET6 {
        // An IPv4-mapped address is kept as it is: the socket is IPv6.
        IpAddr::V6(Ipv6Addr::from(*bytes))
    } else {
        IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
    };
    SocketAddr::new(ip, port)
}
