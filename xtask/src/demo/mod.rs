//! `cargo xtask demo`: leaking clients on a private redis-server, traced, on any machine.

mod child;
pub(crate) mod screenshot;
mod server;

use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::child::Child;
use self::server::Server;
use crate::build;
use crate::run::as_root;
use crate::setup::{self, Scope, Wording};
use crate::workspace::Workspace;

/// How often a signal and the end of the trace are looked for.
const LOOK: Duration = Duration::from_millis(25);
/// What connleak gets to print its report after Ctrl-C.
const LAST_WORDS: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long to trace
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Port of the private redis-server [default: 6379, or a free one when that is taken]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    setup::run(workspace, Scope::Demo, Wording::Changes)?;
    let connleak = build::run(workspace)?;

    // From here on something runs that must be ended: a signal asks for the end, it is not the end.
    let signal = Arc::new(AtomicUsize::new(0));
    for number in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize)
            .context("failed to register a signal handler")?;
    }

    let server = Server::start(args.port)?;
    println!(
        "demo: a private redis-server listens on 127.0.0.1:{}",
        server.port
    );
    let leaker = start_leaker(workspace, server.port)?;
    println!(
        "demo: `leaker`, pid {}, opens a connection every 100 ms in get_client() and forgets two of three",
        leaker.pid()
    );

    let python = start_python_leaker(workspace, server.port)?;
    println!(
        "demo: `leaker.py`, pid {}, does the same in Python, every 200 ms",
        python.pid()
    );

    let seconds = format!("{}s", args.seconds);
    let mut trace = as_root(&connleak);
    trace.args(["trace", "--for", &seconds]);
    if server.port != server::REDIS_PORT {
        trace.args(["--port", &server.port.to_string()]);
    }
    println!("demo: connleak {}\n", said(&trace, &connleak));
    let status = trace_until_signal(&mut trace, &signal)?;

    drop(python);
    drop(leaker);
    drop(server);
    let number = signal.load(Ordering::Relaxed);
    if number != 0 {
        println!("\ndemo: interrupted; the redis-server and the leakers are gone");
        return Ok(ExitCode::from(128 + u8::try_from(number).unwrap_or(0)));
    }
    let code = status.and_then(|status| status.code());
    if code != Some(0) {
        println!("\ndemo: connleak ended with {status:?}");
        return Ok(ExitCode::from(1));
    }
    println!(
        "\ndemo: done; the redis-server and the leakers are gone. On your own machine, as root:"
    );
    println!("  {} trace --for 60s", connleak.display());
    Ok(ExitCode::SUCCESS)
}

fn start_python_leaker(workspace: &Workspace, port: u16) -> Result<Child> {
    let mut leaker = Command::new("python3");
    leaker
        .arg(workspace.root.join("tests/clients/leaker.py"))
        .arg(port.to_string())
        .stdin(Stdio::piped());
    Child::spawn(&mut leaker)
}

fn start_leaker(workspace: &Workspace, port: u16) -> Result<Child> {
    let mut leaker = Command::new(workspace.program("leaker"));
    // Its end is our end: it stops when this pipe closes, whatever happens to us.
    leaker.arg(port.to_string()).stdin(Stdio::piped());
    Child::spawn(&mut leaker)
}

/// Lets connleak run to its end, or asks it for its report when somebody wants to stop.
fn trace_until_signal(
    trace: &mut Command,
    signal: &AtomicUsize,
) -> Result<Option<std::process::ExitStatus>> {
    // It stays in our process group: a terminal's Ctrl-C reaches it too.
    let mut trace = Child::spawn_in_our_group(trace)?;
    loop {
        if let Some(status) = trace.ended()? {
            return Ok(Some(status));
        }
        if signal.load(Ordering::Relaxed) != 0 {
            trace.stop(LAST_WORDS);
            return Ok(None);
        }
        thread::sleep(LOOK);
    }
}

/// The arguments as somebody would type them.
fn said(command: &Command, connleak: &std::path::Path) -> String {
    command
        .get_args()
        .filter(|arg| *arg != connleak.as_os_str() && *arg != "--")
        .map(|arg| arg.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
