//! A running client: up, then told to leak, then holding what it leaked until its stdin ends.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::Entry;
use crate::{child, wait};

/// The program of one entry.
pub struct LeakingClient {
    child: Child,
    stdin: Option<ChildStdin>,
    /// The process that leaks: the program itself, or one that it started.
    pid: u32,
    lines: Lines<BufReader<ChildStdout>>,
}

impl LeakingClient {
    /// Starts it and waits until its runtime is up. It connects when told to.
    pub fn start(entry: &Entry, to: SocketAddr, orders: u32) -> Result<Self> {
        let mut command = (entry.command)(to.port())?;
        command.args([to.ip().to_string(), to.port().to_string()]);
        command.arg(orders.to_string());
        Self::spawn(command)
    }

    /// Any program that says what these say.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let mut child = child::bound(&mut command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {command:?}; run `cargo xtask setup`"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut client = Self {
            pid: child.id(),
            child,
            stdin,
            lines: BufReader::new(stdout).lines(),
        };
        let up = client.line()?;
        ensure!(up == "up", "the client said {up:?} instead of up");
        Ok(client)
    }

    /// Has it leak, and returns once every connection is open.
    pub fn leak(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("stdin is piped")?;
        stdin.write_all(b"\n")?;
        stdin.flush()?;
        let ready = self.line()?;
        let rest = ready.strip_prefix("ready");
        let worker = rest.with_context(|| format!("the client said {ready:?} instead of ready"))?;
        if !worker.is_empty() {
            self.pid = worker.trim().parse()?;
        }
        Ok(())
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has not ended by itself, or by a signal.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    fn line(&mut self) -> Result<String> {
        Ok(self.lines.next().context("the client ended")??)
    }
}

impl Drop for LeakingClient {
    fn drop(&mut self) {
        // It ends what it started when its stdin ends.
        drop(self.stdin.take());
        let ended = wait::until("the client ends", || self.child.try_wait().transpose());
        if ended.is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
