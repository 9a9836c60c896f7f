//! A program that logs its own call chain at each connect, and the report of it beside that log.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::child;
use crate::report::{FrameKind, Report, StackGroup};
use crate::server::RedisServer;
use crate::tracer::{EVERY_STACK, Tracer};

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

/// The program is up before tracing starts, and connects when it has.
pub fn traced(server: &RedisServer, program: &mut ChainLogger) -> Result<(Report, u32, Chains)> {
    let tracer = Tracer::start_with(&[server.port()], &EVERY_STACK)?;
    let (pid, logged) = program.go()?;
    Ok((tracer.finish()?, pid, logged))
}

/// How the programs of a language log its frames.
pub struct Dialect {
    pub kind: FrameKind,
    /// What is logged for a function's name. `None` where the frame is left out.
    pub name: fn(&str) -> Option<String>,
    /// The beginnings of notes that say nothing of the language's own frames.
    pub notes: &'static [&'static str],
}

impl Dialect {
    /// The frames of a group as the program logs them.
    #[must_use]
    pub fn chain(&self, group: &StackGroup) -> Vec<String> {
        let frames = group.frames.iter();
        frames
            .filter(|frame| frame.kind == self.kind)
            .filter_map(|frame| {
                let name = (self.name)(frame.function.as_deref().unwrap_or("?"))?;
                Some(format!("{name}:{}", frame.line.unwrap_or(0)))
            })
            .collect()
    }

    pub fn ensure_as_logged(&self, report: &Report, pid: u32, logged: &Chains) -> Result<()> {
        let mut seen = Chains::new();
        for group in report.of(pid).flat_map(|opener| &opener.stacks) {
            if let Some(note) = &group.note {
                let is_whole = self.notes.iter().any(|it| note.starts_with(it));
                ensure!(is_whole, "{note:?}");
            }
            *seen.entry(self.chain(group)).or_default() += group.outstanding;
        }
        ensure_same(&seen, logged)
    }
}

pub fn ensure_same(seen: &Chains, logged: &Chains) -> Result<()> {
    ensure!(
        seen == logged,
        "the report has {seen:#?}, the program logged {logged:#?}"
    );
    Ok(())
}
