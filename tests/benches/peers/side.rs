//! A side: one of those who watch while the load runs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use connleak_tests::{child, place};

use crate::programs::Programs;

pub(crate) const NOBODY: &str = "nobody";
pub(crate) const CONNLEAK: &str = "connleak";
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
/// What a side gets to print its last words.
const LAST_WORDS: Duration = Duration::from_secs(10);

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

    /// With one family of probes forced.
    pub(crate) fn connleak_with(family: &str, port: u16) -> Result<Self> {
        let options = [format!("--probes={family}"), format!("--port={port}")];
        let mut side = Self::connleak_at(&options.each_ref().map(String::as_str))?;
        side.name = format!("{CONNLEAK}, {family}");
        Ok(side)
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
            return Ok(Watching {
                child: None,
                programs: Programs::default(),
            });
        };
        let mut command = Command::new(&words[0]);
        child::bound(&mut command)
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let spawned = command.spawn();
        let mut child = spawned.with_context(|| format!("failed to start {words:?}"))?;
        let mut stderr = BufReader::new(child.stderr.take().context("stderr is piped")?);
        if self.name.starts_with(CONNLEAK) {
            // It says when it traces; the others are watched.
            stderr.read_line(&mut String::new())?;
        }
        // A full pipe must not hold a side up.
        thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        let mut watching = Watching {
            child: Some(child),
            programs: Programs::default(),
        };
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
                bail!("failed to start {words:?}: {status}");
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

/// A side at work; dropped, it ends.
pub(crate) struct Watching {
    child: Option<Child>,
    pub(crate) programs: Programs,
}

impl Watching {
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.child {
            Some(child) => child.try_wait().context("failed to wait for a side"),
            None => Ok(None),
        }
    }

    /// User and system time of its process so far, us.
    pub(crate) fn own_cpu_us(&self) -> f64 {
        // Of /proc/PID/task/TID/schedstat the first number: ns on a CPU, where stat has ticks.
        let of_thread = |thread: fs::DirEntry| -> Option<f64> {
            let schedstat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            schedstat.split_whitespace().next()?.parse().ok()
        };
        let threads = self
            .pid()
            .map(|pid| fs::read_dir(format!("/proc/{pid}/task")));
        let threads = threads.and_then(Result::ok).into_iter().flatten().flatten();
        threads.filter_map(of_thread).sum::<f64>() / 1000.0
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            interrupt(child);
        }
    }
}

/// As Ctrl-C does, so that it detaches and prints its last words; then less kindly.
pub(crate) fn interrupt(child: &mut Child) {
    let asked = Instant::now();
    if let Ok(pid) = libc::pid_t::try_from(child.id()) {
        // SAFETY: kill takes no pointers; the pid is our child's until it is waited for.
        unsafe { libc::kill(pid, libc::SIGINT) };
    }
    while matches!(child.try_wait(), Ok(None)) {
        if asked.elapsed() > LAST_WORDS {
            // It may end by itself in between.
            let _ = child.kill();
            break;
        }
        thread::sleep(LOOK);
    }
    let _ = child.wait();
}
