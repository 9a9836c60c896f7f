//! A program that logs its own call chain at each connect.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::child;

/// Call chains, innermost first (`function:line`), and how many connections have each.
pub type Chains = BTreeMap<Vec<String>, u64>;

/// The program, ready to connect.
pub struct ChainLogger {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl ChainLogger {
    /// Starts the program and waits until it is up.
    pub fn start(mut command: Command) -> Result<Self> {
        let mut child = child::bound(&mut command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {command:?}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut program = Self {
            child,
            stdin,
            lines: BufReader::new(stdout).lines(),
        };
        ensure!(program.line()? == "up", "{command:?} did not come up");
        Ok(program)
    }

    /// Has it connect. Returns the process that did, and what it logged.
    pub fn go(&mut self) -> Result<(u32, Chains)> {
        let stdin = self.stdin.as_mut().context("stdin is piped")?;
        stdin.write_all(b"go\n")?;
        stdin.flush()?;
        let first = self.line()?;
        let pid = first
            .strip_prefix("pid ")
            .with_context(|| format!("{first:?} is no pid"))?
            .parse()?;
        let mut chains = Chains::new();
        loop {
            let line = self.line()?;
            if line == "ready" {
                return Ok((pid, chains));
            }
            let chain = line.split(' ').map(str::to_owned).collect();
            *chains.entry(chain).or_default() += 1;
        }
    }

    fn line(&mut self) -> Result<String> {
        Ok(self.lines.next().context("the program ended")??)
    }
}

impl Drop for ChainLogger {
    fn drop(&mut self) {
        // A forked child ends with its stdin.
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}
