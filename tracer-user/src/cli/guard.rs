//! `connleak guard`: a command that must not leave connections open.

use std::{
    fs,
    io::{self, IsTerminal},
    os::{fd::AsFd, unix::process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
};

use super::{
    FAILED,
    args::{Format, GuardArgs},
    output,
};
use crate::{
    kernel::Options,
    pipeline::{Judging, Tracer},
    report::{
        self, Report, clean,
        leak::{self, Guarded, SCHEMA},
    },
};

/// The last stacks have this long to be named before the report is made without them.
const LAST_STACKS: Duration = Duration::from_secs(10);
/// Exit code of a command that left too much open.
const LEFT_OPEN: u8 = 1;

pub(super) async fn run(args: GuardArgs) -> Result<ExitCode> {
    // A result that cannot be written is known before the command has run for an hour.
    if let Some(file) = &args.junit {
        write(file, "")?;
    }
    let judging = Judging::default();
    let rules = judging.sites.clone();
    let mut signals = Signals::catch()?;
    let mut tracer = Tracer::start(&options(&args), judging)?;
    tracer.remember_abandoned();
    let began = Instant::now();
    let mut child = spawn(&args)?;
    let status = loop {
        tokio::select! {
            step = tracer.step() => step?,
            status = child.wait() => break status.context("failed to wait for the command")?,
            number = signals.next() => forward(&child, number),
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    // An exiting process closes its files before its parent hears of it (kernel/exit.c, do_exit):
    // all of it is on the ring.
    tracer.drain();
    tracer.settle_stacks(LAST_STACKS).await;
    tracer.reconcile()?;
    let report = tracer.left_open()?;
    let left_open = report.openers.iter().map(|opener| opener.outstanding).sum();
    let guarded = Guarded {
        schema: SCHEMA,
        command: args
            .command
            .iter()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect(),
        exit_code: status.code(),
        signal: status.signal(),
        seconds,
        left_open,
        max_growth: args.max_growth,
        passed: left_open <= args.max_growth,
        leaks: leak::leaks(&report),
        report,
    };
    if let Some(file) = &args.junit {
        write(file, &leak::junit(&guarded))?;
    }
    if args.github && !guarded.passed {
        output::print(&leak::github(&guarded.leaks, &repository()))?;
    }
    match args.output {
        Format::Json => output::print(&report::json(&guarded)?)?,
        Format::Table => {
            output::say(headline(&guarded, &status).trim_end());
            if guarded.left_open > 0 {
                let style = output::style_on(io::stderr().is_terminal(), false);
                output::say(report::table(&guarded.report, &rules, style).trim_end());
            }
        }
    }
    if let Some(loss) = loss(&guarded.report) {
        output::complain(&loss);
    }
    Ok(match guarded.passed {
        false => ExitCode::from(LEFT_OPEN),
        true => ExitCode::from(own_code(&status)),
    })
}

fn options(args: &GuardArgs) -> Options {
    Options {
        ports: args.ports.ports.clone(),
        family: args.hooks.probes.forced(),
        btf: args.hooks.btf.btf.clone(),
        follow_children: true,
        ..Options::default()
    }
}

/// In our own process group: Ctrl-C reaches it as if we were not there, and it may read the
/// terminal.
fn spawn(args: &GuardArgs) -> Result<Child> {
    let (program, arguments) = args
        .command
        .split_first()
        .context("clap demands a command")?;
    let mut command = Command::new(program);
    command.args(arguments);
    if args.output == Format::Json {
        let stderr = io::stderr().as_fd().try_clone_to_owned();
        command.stdout(Stdio::from(stderr.context("failed to copy stderr")?));
    }
    command.spawn().with_context(|| {
        let program = program.to_string_lossy();
        format!("failed to run {program}; name a program that can be run after --")
    })
}

/// The signals that would end us before the command.
struct Signals {
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn catch() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => libc::SIGINT,
            _ = self.quit.recv() => libc::SIGQUIT,
            _ = self.terminate.recv() => libc::SIGTERM,
            _ = self.hangup.recv() => libc::SIGHUP,
        }
    }
}

/// What the terminal sent, it sent to the command as well.
fn forward(child: &Child, number: i32) {
    let from_terminal = matches!(number, libc::SIGINT | libc::SIGQUIT) && in_foreground();
    if from_terminal {
        return;
    }
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // SAFETY: kill touches no memory; the child is not reaped, so its PID is still its own.
        let _ = unsafe { libc::kill(pid, number) };
    }
}

fn in_foreground() -> bool {
    let is_ours = |fd: i32| {
        // SAFETY: both calls only ask the kernel; a descriptor that is no terminal gives -1.
        unsafe { libc::tcgetpgrp(fd) == libc::getpgrp() }
    };
    [
        io::stdin().is_terminal(),
        io::stdout().is_terminal(),
        io::stderr().is_terminal(),
    ]
    .into_iter()
    .zip(0..)
    .any(|(is_terminal, fd)| is_terminal && is_ours(fd))
}

/// As a shell tells it.
fn own_code(status: &ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| Some(128 + status.signal()?))
        .and_then(|code| u8::try_from(code).ok());
    code.unwrap_or(FAILED)
}

/// `connleak guard: 3 connections were left open (allowed: 0); pytest exited with 0`
fn headline(guarded: &Guarded, status: &ExitStatus) -> String {
    let allowed = guarded.max_growth;
    let count = match guarded.left_open {
        0 => "no connection was left open".to_owned(),
        1 => format!("1 connection was left open (allowed: {allowed})"),
        many => format!("{many} connections were left open (allowed: {allowed})"),
    };
    let program = guarded.command.first().map(String::as_str).unwrap_or("?");
    let ended = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    };
    clean(&format!("connleak guard: {count}; {program} {ended}"))
}

/// What was not seen may have been left open, too.
fn loss(report: &Report) -> Option<String> {
    let lost = report.totals.lost;
    let unseen = lost.ring_full + lost.map_full + lost.openers_full;
    (unseen > 0).then(|| {
        format!(
            "{unseen} events were lost: more may have been left open; run a part of it at a time"
        )
    })
}

/// GitHub shows an annotation beside a file of the repository, named from its root.
fn repository() -> PathBuf {
    let workspace = std::env::var_os("GITHUB_WORKSPACE").map(PathBuf::from);
    workspace
        .or_else(|| std::env::current_dir().ok())
        .unwrap_or_default()
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| {
        let file = file.display();
        format!("failed to write {file}; name a file in a folder that exists")
    })
}
