//! A side: one of those who watch while the load runs, and how it is started.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use connleak_tests::{child, place};

use crate::programs::Programs;
use crate::watching::Watching;

pub(crate) const NOBODY: &str = "nobody";
pub(crate) const CONNLEAK: &str = "connleak";
pub(crate) const EVERY_STACK: &str = "connleak, every stack";
pub(crate) const TCPLIFE: &str = "tcplife";
pub(crate) const TCPSTATES: &str = "tcpstates";
pub(crate) const USTACK_COUNT: &str = "bpftrace count by ustack";
pub(crate) const PID_COUNT: &str = "bpftrace count by pid";
pub(crate) const EMPTY: &str = "empty program";
pub(crate) const SS: &str = "ss -tnp";
pub(crate) const NETSTAT: &str = "netstat -tnp";
pub(crate) const NETSTAT_2_S: &str = "netstat every 2 s";
pub(crate) const NETSTAT_30_S: &str = "netstat every 30 s";
pub(crate) const DAEMON: &str = "connleak daemon";
pub(crate) const DAEMON_AFFINITY: &str = "connleak daemon, CPUAffinity";
pub(crate) const DAEMON_CPUSET: &str = "connleak daemon, cpuset";

const ATTACHED_WITHIN: Duration = Duration::from_secs(30);
/// No program more for so long: the side has attached all it has.
const SETTLED: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(50);

/// How to start one.
pub(crate) struct Side {
    pub(crate) name: String,
    command: Option<Vec<String>>,
}

impl Side {
    pub(crate) fn nobody() -> Self {
        Self {
            name: NOBODY.to_owned(),
            command: None,
        }
    }

    /// With default settings, stacks included, as somebody would start it.
    pub(crate) fn connleak(port: u16) -> Result<Self> {
        Self::connleak_at(&[&format!("--port={port}")])
    }

    /// By itself it takes 200 stacks a second of one process, and one in 256 beyond that.
    pub(crate) fn every_stack(port: u16) -> Result<Self> {
        let port = format!("--port={port}");
        let side = Self::connleak_at(&[&port, "--stacks-per-second=1000000"])?;
        Ok(side.named(EVERY_STACK))
    }

    /// With one family of probes forced.
    pub(crate) fn connleak_with(family: &str, port: u16) -> Result<Self> {
        let options = [format!("--probes={family}"), format!("--port={port}")];
        let side = Self::connleak_at(&options.each_ref().map(String::as_str))?;
        Ok(side.named(&format!("{CONNLEAK}, {family}")))
    }

    /// With the ports among the options.
    pub(crate) fn connleak_at(options: &[&str]) -> Result<Self> {
        let program = place::connleak()?.display().to_string();
        let mut words = vec![program.as_str(), "trace", "--output=json"];
        words.extend(options);
        Ok(Self::of(CONNLEAK, &words))
    }

    pub(crate) fn tcplife() -> Self {
        Self::of(TCPLIFE, &["tcplife"])
    }

    pub(crate) fn tcpstates() -> Self {
        Self::of(TCPSTATES, &["tcpstates"])
    }

    /// What a person would type: who connects to the port, from where.
    pub(crate) fn ustack_count(port: u16) -> Self {
        Self::of(
            USTACK_COUNT,
            &["bpftrace", "-e", &counting(port, "pid, ustack")],
        )
    }

    pub(crate) fn pid_count(port: u16) -> Self {
        Self::of(PID_COUNT, &["bpftrace", "-e", &counting(port, "pid")])
    }

    /// What any program on that tracepoint costs before it does anything.
    pub(crate) fn empty() -> Self {
        let script = "tracepoint:sock:inet_sock_set_state { }";
        Self::of(EMPTY, &["bpftrace", "-e", script])
    }

    fn named(self, name: &str) -> Self {
        let name = name.to_owned();
        Self { name, ..self }
    }

    fn of(name: &str, command: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            command: Some(command.iter().map(|&word| word.to_owned()).collect()),
        }
    }

    /// Starts it and waits until its programs are there.
    pub(crate) fn start(&self) -> Result<Watching> {
        let before = Programs::now()?;
        let Some(words) = &self.command else {
            return Ok(Watching::default());
        };
        let is_connleak = self.name.starts_with(CONNLEAK);
        let mut command = Command::new(&words[0]);
        child::bound(&mut command)
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(match is_connleak {
                // It prints one report, at its end.
                true => Stdio::piped(),
                false => Stdio::null(),
            })
            .stderr(Stdio::piped());
        let spawned = command.spawn();
        let mut child = spawned.with_context(|| format!("failed to start {words:?}"))?;
        let mut stderr = BufReader::new(child.stderr.take().context("stderr is piped")?);
        let mut said = String::new();
        if is_connleak {
            // It says when it traces; the others are watched.
            stderr.read_line(&mut said)?;
        }
        // A full pipe must not hold a side up.
        thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        let report = child.stdout.take().map(|mut stdout| {
            thread::spawn(move || {
                let mut report = String::new();
                stdout.read_to_string(&mut report).map(|_| report)
            })
        });
        let mut watching = Watching::of(child, report);
        let began = Instant::now();
        let mut seen = (0, Instant::now());
        loop {
            let programs = Programs::now()?.since(&before);
            if programs.len() != seen.0 {
                seen = (programs.len(), Instant::now());
            }
            if seen.0 > 0 && seen.1.elapsed() > SETTLED {
                watching.programs = programs;
                return Ok(watching);
            }
            if let Some(status) = watching.ended()? {
                bail!("failed to start {words:?}: {status}; it said {said:?}");
            }
            if began.elapsed() > ATTACHED_WITHIN {
                bail!("failed to see a program of {words:?} within {ATTACHED_WITHIN:?}");
            }
            thread::sleep(LOOK);
        }
    }
}

/// TCP_SYN_SENT is 2 (include/net/tcp_states.h): connect, in its caller.
fn counting(port: u16, by: &str) -> String {
    format!(
        "tracepoint:sock:inet_sock_set_state \
         /args->newstate == 2 && args->dport == {port}/ {{ @[{by}] = count(); }}"
    )
}
