//! The filter: which sockets matter. Everything else in a program comes after it.

use tracer_ebpf::abi::counters::Counter;

use crate::{globals::port_is_watched, maps::count, sock::SockFields};

/// A socket of a watched port.
#[derive(Clone, Copy)]
pub(crate) struct Match {
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    /// The watched port is the local one.
    pub(crate) server_end: bool,
}

/// The match without counting, for the iterators.
#[inline(always)]
pub(crate) fn watched(sock: impl SockFields) -> Option<Match> {
    let ports = sock.ports()?;
    let (local_port, remote_port) = (ports.local(), ports.remote());
    if port_is_watched(remote_port) && remote_port != 0 {
        return Some(Match {
            local_port,
            remote_port,
            server_end: false,
        });
    }
    // `inet_put_port` zeroes the local port when a socket enters TCP_CLOSE, before the state's
    // tracepoint fires (net/ipv4/tcp.c, tcp_set_state); `inet_sport` keeps it.
    let local_port = if local_port == 0 {
        sock.source_port()?
    } else {
        local_port
    };
    (local_port != 0 && port_is_watched(local_port)).then_some(Match {
        local_port,
        remote_port,
        server_end: true,
    })
}

/// Counts the event as matched if its socket is watched, else as passed.
#[inline(always)]
pub(crate) fn matched(sock: impl SockFields) -> Option<Match> {
    let found = watched(sock);
    if found.is_none() {
        count(Counter::Passed);
        return None;
    }
    count(Counter::Matched);
    found
}
