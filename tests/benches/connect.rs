//! What a connect costs in the kernel: the run time of connleak's programs, as the kernel counts it.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use connleak_tests::chains::ChainLogger;
use connleak_tests::dial::dial;
use connleak_tests::peer::FullBacklog;
use connleak_tests::python;
use connleak_tests::script::How;
use connleak_tests::server;
use connleak_tests::tracer::Tracer;

/// Within the usual limit of open files.
const CONNECTS: u32 = 300;
const ROUNDS: u32 = 5;
/// Of a copy of 32 KiB, and of a walk of 32 Python frames.
const BOUND_NS: u64 = 5_000;
const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// Deeper than the largest copy, so that the whole copy is taken.
const DEPTH_BYTES: usize = 48 << 10;

/// The kernel counts while this lives.
struct Statistics(String);

impl Statistics {
    fn start() -> Result<Self> {
        let before = fs::read_to_string(STATS).context("failed to read whether BPF is timed")?;
        fs::write(STATS, "1").context("failed to have BPF timed: needs root")?;
        Ok(Self(before))
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        let _ = fs::write(STATS, &self.0);
    }
}

/// Nanoseconds that the programs of one tracer have run.
fn run_time_ns(tracer: &Tracer) -> Result<u64> {
    let mut seen = Vec::new();
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", tracer.pid()))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        if let (Some(id), Some(ns)) = (field("prog_id:"), field("run_time_ns:")) {
            seen.push((id, ns));
        }
    }
    // One program has several descriptors: its own, and its link's.
    seen.sort_unstable();
    seen.dedup_by_key(|(id, _)| *id);
    Ok(seen.iter().map(|(_, ns)| ns).sum())
}

#[inline(never)]
fn connect_from_the_depth(to: SocketAddr) -> Result<Vec<OwnedFd>> {
    let mut depth = std::hint::black_box([1_u8; DEPTH_BYTES]);
    let open: io::Result<Vec<OwnedFd>> = (0..CONNECTS).map(|_| begin(to)).collect();
    std::hint::black_box(&mut depth);
    Ok(open?)
}

/// A socket that calls connect and does not wait.
fn begin(to: SocketAddr) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just opened, and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    dial(fd.as_raw_fd(), How::Undecided, to)?;
    Ok(fd)
}

/// The least of some rounds: what else the machine does only adds. Nanoseconds a connect. What
/// `prepare` returns connects; it is ready before tracing starts, and keeps the sockets open until
/// the programs' time was read.
fn least<K, C: FnOnce() -> Result<K>>(
    options: &[&str],
    mut prepare: impl FnMut(SocketAddr) -> Result<C>,
) -> Result<u64> {
    let mut least_ns = u64::MAX;
    for _ in 0..ROUNDS {
        // It answers nobody: what connects stays in SYN_SENT, so that a connect is all that happens.
        let silent = FullBacklog::on(server::free_port()?)?;
        let to = silent.address()?;
        let mut arguments = vec!["--stacks-per-second", "1000000"];
        arguments.extend(options);
        let connect = prepare(to)?;
        let tracer = Tracer::start_with(&[to.port()], &arguments)?;
        let before_ns = run_time_ns(&tracer)?;
        let kept = connect()?;
        let taken_ns = run_time_ns(&tracer)? - before_ns;
        drop(kept);
        least_ns = least_ns.min(taken_ns / u64::from(CONNECTS));
        tracer.finish()?;
    }
    Ok(least_ns)
}

/// A figure that has no bound of its own: what the others are told apart from.
fn say(what: &str, ns: u64) -> Result<()> {
    println!("{what:<44} {:>8.2}", microseconds(ns));
    Ok(io::stdout().flush()?)
}

/// A figure beside the bound that it must not pass.
fn say_bounded(what: &str, ns: u64) -> Result<()> {
    let ratio = ns as f64 / BOUND_NS as f64;
    let verdict = if ns <= BOUND_NS { "holds" } else { "FAILS" };
    println!(
        "{what:<44} {:>8.2} {:>8.2} {ratio:>6.2}  {verdict}",
        microseconds(ns),
        microseconds(BOUND_NS)
    );
    Ok(io::stdout().flush()?)
}

fn microseconds(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

fn native(to: SocketAddr) -> Result<impl FnOnce() -> Result<Vec<OwnedFd>>> {
    Ok(move || connect_from_the_depth(to))
}

fn main() -> Result<()> {
    let _statistics = Statistics::start()?;
    println!("kernel time of a matching connect, hot: all that all programs do until it returns");
    println!("{:<44} {:>8} {:>8} {:>6}", "", "us", "bound us", "ratio");
    say("without stack", least(&["--stack-bytes", "0"], native)?)?;
    let copy_ns = least(&["--stack-bytes", "32768"], native)?;
    say_bounded("with a copy of 32 KiB", copy_ns)?;
    for python in python::interpreters()? {
        let walk = |stack_bytes: &str| {
            let prepare = |to| {
                let mut program = python::start(&python, to, "deep", CONNECTS)?;
                Ok(move || -> Result<ChainLogger> {
                    program.go()?;
                    Ok(program)
                })
            };
            least(&["--stack-bytes", stack_bytes], prepare)
        };
        say(&format!("{}, without stack", python.name), walk("0")?)?;
        let walk_ns = walk("4096")?;
        say_bounded(&format!("{}, 32 frames and a page", python.name), walk_ns)?;
    }
    Ok(())
}
