//! A private redis-server on a free loopback port, gone when it is dropped.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{child, wait};

/// The server process and its folder.
pub struct RedisServer {
    child: Child,
    port: u16,
    _dir: TempDir,
}

/// A port that was free a moment ago on 127.0.0.1 and ::1.
///
/// Below the ephemeral range: a client's own port then never equals a watched one.
pub fn free_port() -> Result<u16> {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test binaries that run at the same time start at different places.
    let start = (std::process::id() % 900) as u16 * 20;
    for _ in 0..2000 {
        let port = 10_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let v4 = TcpListener::bind(("127.0.0.1", port));
        let v6 = TcpListener::bind(("::1", port));
        if v4.is_ok() && v6.is_ok() {
            return Ok(port);
        }
    }
    bail!("failed to find a free port on 127.0.0.1 and ::1")
}

impl RedisServer {
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// With room for `clients`; redis-server raises its own limit of open files.
    pub fn start_for(clients: u32) -> Result<Self> {
        Self::start_with(&["--maxclients", &clients.to_string()])
    }

    /// Starts it with more arguments.
    pub fn start_with(arguments: &[&str]) -> Result<Self> {
        Self::start_anywhere(|port, dir| {
            let port = port.to_string();
            let mut command = Command::new("redis-server");
            command
                .args(["--port", &port, "--bind", "127.0.0.1", "-::1"])
                .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
                .args(["--maxclients", "12000", "--tcp-backlog", "4096", "--dir"])
                .arg(dir)
                .args(arguments);
            Ok(command)
        })
    }

    /// A sentinel that watches `master` under the name "main".
    pub fn sentinel_of(master: &Self) -> Result<Self> {
        Self::start_anywhere(|port, dir| {
            // It takes no monitor from the command line, and writes its file anew.
            let file = dir.join("sentinel.conf");
            let master = master.port;
            let text = format!(
                "port {port}\nbind 127.0.0.1 -::1\nsentinel monitor main 127.0.0.1 {master} 1\n"
            );
            std::fs::write(&file, text)?;
            let mut command = Command::new("redis-server");
            command.arg(&file).arg("--sentinel");
            Ok(command)
        })
    }

    fn start_anywhere(command: impl Fn(u16, &Path) -> Result<Command>) -> Result<Self> {
        for _ in 0..5 {
            let (port, dir) = (free_port()?, TempDir::with_prefix("connleak-redis-")?);
            let command = command(port, dir.path())?;
            if let Some(server) = Self::start_on(port, dir, command)? {
                return Ok(server);
            }
        }
        bail!("failed to start redis-server: five ports were taken from under it")
    }

    /// `None` if the server ended at once: its port was taken in between.
    fn start_on(port: u16, dir: TempDir, mut command: Command) -> Result<Option<Self>> {
        let child = child::bound(&mut command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("failed to start redis-server; run `cargo xtask setup`")?;
        let mut server = Self {
            child,
            port,
            _dir: dir,
        };
        let up = wait::until("redis-server answers PING", || {
            if matches!(server.child.try_wait(), Ok(Some(_))) {
                return Some(false);
            }
            ping(port).then_some(true)
        })?;
        // The probe's own connection must be gone, or the first count of a test is one too many.
        wait::until("the probe's connection to be gone", || {
            let text = std::fs::read_to_string("/proc/net/tcp").ok()?;
            (!crate::truth::lines_with_port(&text, port).any(|l| l.state == "ESTABLISHED"))
                .then_some(())
        })?;
        Ok(up.then_some(server))
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    #[must_use]
    pub fn v4(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    #[must_use]
    pub fn v6(&self) -> SocketAddr {
        SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, self.port))
    }

    /// 127.0.0.1 as an IPv6 socket dials it.
    #[must_use]
    pub fn v4_mapped(&self) -> SocketAddr {
        SocketAddr::from((std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped(), self.port))
    }
}

/// A redis-server that is reached over a unix socket alone, from any network namespace.
pub struct SocketServer {
    child: Child,
    path: PathBuf,
}

impl SocketServer {
    pub fn start(path: &Path) -> Result<Self> {
        Self::start_with(path, &["--appendonly", "no"])
    }

    /// Starts it with more arguments.
    pub fn start_with(path: &Path, arguments: &[&str]) -> Result<Self> {
        let child = child::bound(&mut Command::new("redis-server"))
            .args(["--port", "0", "--save", "", "--daemonize", "no"])
            .args(arguments)
            .arg("--unixsocket")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("failed to start redis-server; run `cargo xtask setup`")?;
        let path = path.to_owned();
        let server = Self { child, path };
        wait::until("redis-server listens on its socket", || {
            std::os::unix::net::UnixStream::connect(&server.path).ok()
        })?;
        Ok(server)
    }

    /// As `connleak` takes it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("unix://{}", self.path.display())
    }
}

impl Drop for SocketServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn ping(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let mut answer = [0u8; 7];
    stream.set_read_timeout(Some(wait::patience())).is_ok()
        && stream.write_all(b"PING\r\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && &answer == b"+PONG\r\n"
}
