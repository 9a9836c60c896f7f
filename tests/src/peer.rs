//! A server under the test's control: accepts, and then closes or resets when it is told to.

use std::collections::HashMap;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail, ensure};

use crate::address::plain;
use crate::{server, wait};

type Accepted = Arc<Mutex<HashMap<SocketAddr, TcpStream>>>;

/// Listeners on one port of loopback, and every accepted connection by its client's address.
pub struct Peer {
    port: u16,
    accepted: Accepted,
    stop: Arc<AtomicBool>,
    acceptors: Vec<JoinHandle<()>>,
}

impl Peer {
    /// Listens on 127.0.0.1 and ::1 of a free port, in the calling thread's namespace.
    pub fn start() -> Result<Self> {
        for _ in 0..5 {
            match Self::on(server::free_port()?) {
                Err(error) if is_taken(&error) => {}
                started => return started,
            }
        }
        bail!("failed to listen: five ports were taken from under it")
    }

    pub fn on(port: u16) -> Result<Self> {
        let listeners = [
            TcpListener::bind(("127.0.0.1", port))?,
            TcpListener::bind(("::1", port))?,
        ];
        Self::of(port, listeners.into())
    }

    /// Listens on all addresses with one IPv6 socket: IPv4 clients get a mapped server end.
    ///
    /// For namespaces of a test's own only: it listens beyond loopback.
    pub fn dual_stack(port: u16) -> Result<Self> {
        // std sets no IPV6_V6ONLY, and the kernel's default is off.
        Self::of(port, vec![TcpListener::bind(("::", port))?])
    }

    /// Like [`Self::start`], but closes a server end as soon as its client is gone, as redis-server
    /// does: for loads that nobody steers.
    pub fn draining() -> Result<Self> {
        let mut peer = Self::start()?;
        let (accepted, stop) = (Arc::clone(&peer.accepted), Arc::clone(&peer.stop));
        let drainer = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if let Ok(mut map) = accepted.lock() {
                    map.retain(|_, stream| is_open(stream));
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        peer.acceptors.push(drainer);
        Ok(peer)
    }

    fn of(port: u16, listeners: Vec<TcpListener>) -> Result<Self> {
        let accepted = Accepted::default();
        let stop = Arc::new(AtomicBool::new(false));
        let mut acceptors = Vec::new();
        for listener in listeners {
            // std listens with a backlog of 128; bursts of tests are larger.
            // SAFETY: listen again on our own listening fd only changes the backlog.
            let rc = unsafe { libc::listen(listener.as_raw_fd(), 4096) };
            ensure!(rc == 0, "failed to listen on port {port}");
            let (accepted, stop) = (Arc::clone(&accepted), Arc::clone(&stop));
            acceptors.push(std::thread::spawn(move || {
                accept(&listener, &accepted, &stop)
            }));
        }
        Ok(Self {
            port,
            accepted,
            stop,
            acceptors,
        })
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub fn v4(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    #[must_use]
    pub fn v6(&self) -> SocketAddr {
        SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, self.port))
    }

    #[must_use]
    pub fn v4_mapped(&self) -> SocketAddr {
        SocketAddr::from((std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped(), self.port))
    }

    /// Waits until the connection from `client` is accepted, and hands it out.
    pub fn take(&self, client: SocketAddr) -> Result<TcpStream> {
        let key = plain(client);
        wait::until("the peer accepts", || {
            self.accepted.lock().ok()?.remove(&key)
        })
        .with_context(|| format!("client {key}"))
    }

    /// Closes the server end in order: the client sees FIN.
    pub fn close(&self, client: SocketAddr) -> Result<()> {
        drop(self.take(client)?);
        Ok(())
    }

    /// Reads the one byte that a fast open carries: unread data would turn a close into a reset.
    pub fn read_byte(&self, client: SocketAddr) -> Result<()> {
        let mut stream = self.take(client)?;
        stream.read_exact(&mut [0])?;
        if let Ok(mut map) = self.accepted.lock() {
            map.insert(plain(client), stream);
        }
        Ok(())
    }

    /// Closes the server end with SO_LINGER 0: the client sees RST.
    pub fn reset(&self, client: SocketAddr) -> Result<()> {
        set_linger_zero(self.take(client)?.as_raw_fd())
    }

    /// Waits until connections of all `clients` are accepted.
    pub fn wait_accepted(&self, clients: usize) -> Result<()> {
        wait::until("the peer accepts all", || {
            (self.accepted.lock().ok()?.len() >= clients).then_some(())
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for acceptor in self.acceptors.drain(..) {
            let _ = acceptor.join();
        }
    }
}

/// A listener whose accept queue is full: further SYNs are dropped, so a connect to it stays in
/// SYN_SENT and times out. (A blackhole route would refuse at once, and needs no module here.)
pub struct FullBacklog {
    listener: TcpListener,
    _fill: Vec<TcpStream>,
}

impl FullBacklog {
    pub fn on(port: u16) -> Result<Self> {
        // SAFETY: a plain socket call; the fd is checked and then owned by TcpListener.
        let listener = unsafe {
            let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            ensure!(fd >= 0, "failed to open a socket");
            TcpListener::from_raw_fd(fd)
        };
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        let raw = crate::script::RawAddress::from(to);
        // SAFETY: raw is a valid sockaddr of the given length for the call's duration.
        let bound = unsafe { libc::bind(listener.as_raw_fd(), raw.as_ptr(), raw.len()) };
        ensure!(bound == 0, "failed to bind {to}");
        // SAFETY: listen on an owned, bound fd.
        let listening = unsafe { libc::listen(listener.as_raw_fd(), 0) };
        ensure!(listening == 0, "failed to listen on {to}");
        // A backlog of 0 holds one connection; the kernel refuses what exceeds it.
        let fill = vec![TcpStream::connect(to)?];
        Ok(Self {
            listener,
            _fill: fill,
        })
    }

    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }
}

/// Makes the next close of `fd` send RST.
pub fn set_linger_zero(fd: i32) -> Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: linger outlives the call and its size is given.
    let rc = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    ensure!(
        rc == 0,
        "failed to set SO_LINGER: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}

/// False once the client has closed or reset.
fn is_open(stream: &TcpStream) -> bool {
    let mut poll = libc::pollfd {
        fd: stream.as_raw_fd(),
        events: libc::POLLIN | libc::POLLRDHUP,
        revents: 0,
    };
    // SAFETY: one pollfd, and its count is 1.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 0 }
}

fn accept(listener: &TcpListener, accepted: &Accepted, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut poll = libc::pollfd {
            fd: listener.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd, and its count is 1. The bound lets `stop` be seen.
        if unsafe { libc::poll(&mut poll, 1, 50) } <= 0 {
            continue;
        }
        if let (Ok((stream, from)), Ok(mut map)) = (listener.accept(), accepted.lock()) {
            map.insert(plain(from), stream);
        }
    }
}

fn is_taken(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}
