//! Notices to the service manager: ready, reloading, alive, stopping.

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::clock;

/// Nothing is sent where NOTIFY_SOCKET is unset: connleak was not started by a manager.
pub(super) struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notify {
    pub(super) fn open() -> Self {
        let socket = env::var("NOTIFY_SOCKET").ok().and_then(|name| {
            let address = match name.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(&name),
            };
            Some((UnixDatagram::unbound().ok()?, address.ok()?))
        });
        Self {
            socket,
            watchdog: watchdog(),
        }
    }

    /// How often [`Self::alive`] is wanted.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.socket.is_some())
    }

    pub(super) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    pub(super) fn reloading(&self) {
        let now_us = clock::monotonic_ns() / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}"));
    }

    pub(super) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    pub(super) fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}"));
    }

    pub(super) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            // The manager that does not listen finds out by its own timeouts.
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

/// Half of what the manager waits, unless the watchdog is for another process.
fn watchdog() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let us = number("WATCHDOG_USEC").filter(|us| *us > 0)?;
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    ours.then_some(Duration::from_micros(us / 2))
}
