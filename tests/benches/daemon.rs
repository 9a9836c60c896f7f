//! What the daemon costs and how soon it speaks: figures to read, nothing that judges them.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use connleak_tests::daemon::{Daemon, Home};
use connleak_tests::server::RedisServer;
use connleak_tests::wait;

/// What the target speaks of: a minute holds one reconcile, one heartbeat and one CLIENT LIST.
const IDLE: Duration = Duration::from_secs(60);
const CONNECTIONS: usize = 100;
const CROSSINGS: usize = 50;

fn main() -> Result<()> {
    idle()?;
    level()
}

/// CPU by /proc/PID/task/*/schedstat: nanoseconds, and none of the time a busy machine let it wait.
fn idle() -> Result<()> {
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    home.configure(redis.port(), "", "")?;
    home.change("\"1h\"", "\"1m\"")?;
    let daemon = home.start()?;
    daemon.says("redis is up")?;
    let _open: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| TcpStream::connect(redis.v4()))
        .collect::<std::io::Result<_>>()?;
    counted(&daemon, 2 * CONNECTIONS)?;
    let (forks, before) = (forks()?, cpu_ns(daemon.pid())?);
    // A measurement lasts; no condition ends it.
    std::thread::sleep(IDLE);
    let (forks, after) = (self::forks()? - forks, cpu_ns(daemon.pid())?);
    let share = |ns: u64| 100.0 * ns as f64 / IDLE.as_nanos() as f64;
    let used = |name: &str| {
        let of = |list: &[(String, u64)]| {
            list.iter()
                .filter(|(it, _)| it == name)
                .map(|it| it.1)
                .sum()
        };
        let (before, after): (u64, u64) = (of(&before), of(&after));
        after.saturating_sub(before)
    };
    let mut names: Vec<&str> = after.iter().map(|(name, _)| &**name).collect();
    names.dedup();
    let total: u64 = names.iter().map(|name| used(name)).sum();
    println!(
        "idle daemon, {CONNECTIONS} connections, {} s: {:.3} % of a core (target 0.1 %)",
        IDLE.as_secs(),
        share(total)
    );
    for name in names {
        println!("    {name:<16} {:.3} %", share(used(name)));
    }
    println!("    the machine started {forks} processes meanwhile: each exec is looked at");
    let resident = daemon.status()?["resident_bytes"].as_f64();
    let resident = resident.context("resident_bytes")? / f64::from(1 << 20);
    println!("    resident {resident:.1} MiB (target 40 MiB)");
    Ok(())
}

/// From before connect to the line with the level, as its reader saw it.
fn level() -> Result<()> {
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    home.configure(redis.port(), "", "")?;
    let daemon = home.start()?;
    daemon.says("redis is up")?;
    let below: Vec<TcpStream> = (0..12)
        .map(|_| TcpStream::connect(redis.v4()))
        .collect::<std::io::Result<_>>()?;
    let mut took = Vec::new();
    for crossing in 1..=CROSSINGS {
        counted(&daemon, 2 * below.len())?;
        let began = Instant::now();
        let crossed = TcpStream::connect(redis.v4())?;
        let line = wait::until("the level to be said", || {
            daemon.nth("HEALTHY -> WARNING", crossing)
        })?;
        took.push(line.at.duration_since(began));
        drop(crossed);
    }
    took.sort();
    println!(
        "from the connect that crosses to the logged level (hold 0), {CROSSINGS} times: \
         median {:.2} ms, worst {:.2} ms (target 100 ms)",
        took[took.len() / 2].as_secs_f64() * 1e3,
        took[took.len() - 1].as_secs_f64() * 1e3
    );
    Ok(())
}

fn counted(daemon: &Daemon, count: usize) -> Result<()> {
    wait::until("the connections to be counted", || {
        let status = daemon.status().ok()?;
        (status["subjects"][0]["count"] == count).then_some(())
    })
}

/// Name and CPU time of each thread.
fn cpu_ns(pid: u32) -> Result<Vec<(String, u64)>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task: PathBuf = entry?.path();
        let name = fs::read_to_string(task.join("comm"))?.trim().to_owned();
        let text = fs::read_to_string(task.join("schedstat"))?;
        let ran = text.split(' ').next().context("schedstat")?;
        threads.push((name, ran.parse()?));
    }
    threads.sort();
    Ok(threads)
}

fn forks() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let forks = text
        .lines()
        .find_map(|line| line.strip_prefix("processes "));
    Ok(forks.context("processes in /proc/stat")?.parse()?)
}
