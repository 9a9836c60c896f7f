//! What a daemon at rest costs: figures to read, nothing that judges them.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use connleak_tests::daemon::Home;
use connleak_tests::server::RedisServer;

/// What the target speaks of: a minute holds one reconcile, one heartbeat and one CLIENT LIST.
const IDLE: Duration = Duration::from_secs(60);
/// Until the tables for naming stacks are given back.
const SETTLES: Duration = Duration::from_secs(25);
const CONNECTIONS: usize = 100;

/// CPU by /proc/PID/task/*/schedstat: nanoseconds, and none of the time a busy machine let it wait.
/// Both ends of the connections are here, so that their level is CRITICAL: nothing is at rest that
/// a daemon may not let rest.
fn main() -> Result<()> {
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    home.configure(redis.port(), "", "")?;
    home.change("\"1h\"", "\"1m\"")?;
    let daemon = home.start()?;
    daemon.says("redis is up")?;
    let _open: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| TcpStream::connect(redis.v4()))
        .collect::<std::io::Result<_>>()?;
    daemon.counts(2 * CONNECTIONS)?;
    // It names the stacks of what was just opened, and keeps their tables for 20 s: not yet idle.
    std::thread::sleep(SETTLES);
    let (forks, before) = (forks()?, threads(daemon.pid())?);
    // A measurement lasts; no condition ends it.
    std::thread::sleep(IDLE);
    let (forks, after) = (self::forks()? - forks, threads(daemon.pid())?);
    let since = |thread: &Thread| {
        let then = before.iter().find(|it| it.tid == thread.tid);
        let (cpu_ns, wakes) = then.map_or((0, 0), |it| (it.cpu_ns, it.wakes));
        (thread.cpu_ns - cpu_ns, thread.wakes - wakes)
    };
    let share = |ns: u64| 100.0 * ns as f64 / IDLE.as_nanos() as f64;
    let total: u64 = after.iter().map(|thread| since(thread).0).sum();
    println!(
        "idle daemon, {CONNECTIONS} connections, {} s: {:.3} % of a core (target 0.1 %)",
        IDLE.as_secs(),
        share(total)
    );
    for thread in &after {
        let (cpu_ns, wakes) = since(thread);
        println!(
            "    {:<16} {:.3} %, ran {:.1} times a second",
            thread.name,
            share(cpu_ns),
            wakes as f64 / IDLE.as_secs_f64()
        );
    }
    println!("    the machine started {forks} processes meanwhile: each exec is looked at");
    let resident = daemon.status()?["resident_bytes"].as_f64();
    let resident = resident.context("resident_bytes")? / f64::from(1 << 20);
    println!("    resident {resident:.1} MiB (target 40 MiB)");
    Ok(())
}

struct Thread {
    tid: String,
    name: String,
    cpu_ns: u64,
    /// How often it was given a CPU.
    wakes: u64,
}

fn threads(pid: u32) -> Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = entry?;
        let read = |name: &str| fs::read_to_string(task.path().join(name));
        // Time on a CPU, time that it waited for one, and how often it got it.
        let text = read("schedstat")?;
        let numbers: Vec<u64> = text
            .split_whitespace()
            .map(str::parse)
            .collect::<std::result::Result<_, _>>()?;
        let [cpu_ns, _, wakes] = numbers[..] else {
            bail!("three numbers: {text}");
        };
        threads.push(Thread {
            tid: task.file_name().to_string_lossy().into_owned(),
            name: read("comm")?.trim().to_owned(),
            cpu_ns,
            wakes,
        });
    }
    Ok(threads)
}

fn forks() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let forks = text
        .lines()
        .find_map(|line| line.strip_prefix("processes "));
    Ok(forks.context("processes in /proc/stat")?.parse()?)
}
