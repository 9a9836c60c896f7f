//! The language of the actor: one operation a datagram, one answer with what really happened.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How a socket is opened.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub enum How {
    Connect,
    /// O_NONBLOCK, EINPROGRESS, then poll until it is decided.
    NonBlocking,
    /// O_NONBLOCK, and left undecided.
    Undecided,
    /// On a thread that ends right after.
    Thread,
    /// IORING_OP_CONNECT.
    Uring,
    /// IORING_OP_CONNECT with IOSQE_ASYNC: an io-wq worker connects.
    UringAsync,
    /// sendto with MSG_FASTOPEN: no connect call at all.
    FastOpen,
    /// TCP_FASTOPEN_CONNECT, then sendto: connect may be put off until the data.
    SendTo,
    /// SO_REUSEPORT and SO_REUSEADDR, bound to this local address first.
    ReusePort {
        from: SocketAddr,
    },
    /// IPPROTO_MPTCP.
    Mptcp,
    /// TCP_USER_TIMEOUT of one second, blocking.
    ShortTimeout,
}

/// One operation of one process. `socket` is the script's name for a socket, not an fd.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub enum Op {
    /// Connects a new socket, or once more one whose connect failed.
    Open {
        socket: u32,
        how: How,
        to: SocketAddr,
    },
    /// One more fd on the same socket.
    Dup {
        socket: u32,
    },
    /// Closes one fd of the socket.
    Close {
        socket: u32,
    },
    /// Closes every fd of the socket in this process, with RST.
    Abort {
        socket: u32,
    },
    /// shutdown(SHUT_WR).
    HalfClose {
        socket: u32,
    },
    /// Sends one fd over SCM_RIGHTS; the receiver answers.
    Pass {
        socket: u32,
        to: String,
    },
    /// The child answers. `pid`: which one it must get.
    Fork {
        child: String,
        pid: Option<u32>,
    },
    /// unshare(CLONE_NEWPID): the next child is PID 1 of a namespace of its own.
    UnsharePids,
    /// Becomes the program named by the path; sockets stay open.
    Exec {
        program: PathBuf,
    },
    /// Answers with the socket's state.
    Look {
        socket: u32,
    },
    /// prctl(PR_SET_NAME).
    Name {
        bytes: Vec<u8>,
    },
    EnterNetNs {
        path: PathBuf,
    },
    Exit,
    /// Answers only.
    Ping,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Command {
    pub id: u64,
    pub op: Op,
}

/// What the operation did, by the process that did it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    pub id: u64,
    /// As the harness's PID namespace names it, whatever the process itself says.
    pub pid: u32,
    /// Fds of the operation's socket in the answering process, after the operation.
    pub fds: Vec<i32>,
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
    /// TCP_INFO's state of the operation's socket: known for dead sockets too, which /proc/net/tcp
    /// does not list, and without a walk over the kernel's whole hash table.
    pub state: Option<u8>,
    /// errno of the call that failed.
    pub errno: Option<i32>,
}

/// A sockaddr for raw calls.
#[derive(Clone, Copy)]
pub struct RawAddress {
    storage: libc::sockaddr_storage,
    length: libc::socklen_t,
}

impl From<SocketAddr> for RawAddress {
    fn from(address: SocketAddr) -> Self {
        // SAFETY: all-zero is a valid sockaddr_storage.
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let place = &raw mut storage;
        let length = match address {
            SocketAddr::V4(v4) => {
                let raw = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(v4.ip().octets()),
                    },
                    sin_zero: [0; 8],
                };
                // SAFETY: sockaddr_storage is large and aligned enough for every sockaddr.
                unsafe { place.cast::<libc::sockaddr_in>().write(raw) };
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                let raw = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr {
                        s6_addr: v6.ip().octets(),
                    },
                    sin6_scope_id: 0,
                };
                // SAFETY: as above.
                unsafe { place.cast::<libc::sockaddr_in6>().write(raw) };
                size_of::<libc::sockaddr_in6>()
            }
        };
        Self {
            storage,
            length: length as libc::socklen_t,
        }
    }
}

impl RawAddress {
    #[must_use]
    pub fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "the length of a C argument, not of a container"
    )]
    pub fn len(&self) -> libc::socklen_t {
        self.length
    }
}
