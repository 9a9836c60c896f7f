//! A private redis-server: on loopback, in a directory of its own, without persistence.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::child::Child;

pub(super) const REDIS_PORT: u16 = 6379;

const READY_WITHIN: Duration = Duration::from_secs(10);
const ANSWERS_WITHIN: Duration = Duration::from_millis(500);

pub(super) struct Server {
    pub(super) port: u16,
    // Dropped in this order: the process before its directory.
    _process: Child,
    _dir: TempDir,
}

impl Server {
    /// On the wanted port, or on :6379, or where that is taken on a free one.
    pub(super) fn start(wanted: Option<u16>) -> Result<Self> {
        let port = match wanted {
            Some(port) if is_free(port)? => port,
            Some(port) => bail!("failed to listen on 127.0.0.1:{port}: it is taken"),
            None if is_free(REDIS_PORT)? => REDIS_PORT,
            None => free_port()?,
        };
        let dir = TempDir::with_prefix("connleak-demo-").context("failed to make a directory")?;
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(["--maxclients", "10000", "--loglevel", "warning"])
            .arg("--dir")
            .arg(dir.path())
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut process = Child::spawn(&mut command)?;
        let began = Instant::now();
        while !answers(port) {
            if let Some(status) = process.ended()? {
                bail!("failed to start redis-server on 127.0.0.1:{port}: {status}");
            }
            if began.elapsed() > READY_WITHIN {
                bail!("failed to reach redis-server on 127.0.0.1:{port} within {READY_WITHIN:?}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            port,
            _process: process,
            _dir: dir,
        })
    }
}

fn is_free(port: u16) -> Result<bool> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(false),
        Err(error) => Err(error).with_context(|| format!("failed to listen on 127.0.0.1:{port}")),
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("failed to find a port")?;
    Ok(listener.local_addr()?.port())
}

fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, ANSWERS_WITHIN) else {
        return false;
    };
    let mut answer = [0; 5];
    stream.set_read_timeout(Some(ANSWERS_WITHIN)).is_ok()
        && stream.write_all(b"PING\r\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer == *b"+PONG"
}
