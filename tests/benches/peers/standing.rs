//! Standing: many open connections at rest, what they cost, and how long it takes to list them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use connleak_tests::server::RedisServer;
use connleak_tests::{child, place};
use serde::Deserialize;

use crate::Plan;
use crate::figures::{Figures, Quantity};
use crate::side::{CONNLEAK, NETSTAT, SS, Side};
use crate::watching::Watching;

const AT_REST: Duration = Duration::from_secs(10);
/// Holders looked up, stacks named, memory given back (a resolver at rest keeps nothing).
const CALM: Duration = Duration::from_secs(25);
const WORKLOAD: &str = "standing";
/// A list of the slowest takes seconds.
const LIST_ROUNDS: u32 = 5;
/// What a holder or a server has open besides its connections, with room to spare.
const FILES_ELSE: u32 = 500;
/// The verb of this very program that holds connections.
pub(crate) const HOLD: &str = "hold";

pub(crate) fn run(plan: &Plan, figures: &mut Figures) -> Result<()> {
    let shares = shares(plan.standing, open_files_allowed()? - FILES_ELSE);
    let servers = shares
        .iter()
        .map(|share| RedisServer::start_for(share + 100))
        .collect::<Result<Vec<_>>>()?;
    let ports = servers
        .iter()
        .map(|server| format!("--port={}", server.port()));
    let ports: Vec<String> = ports.collect();
    let sockets = 2 * plan.standing;
    let room = format!("--max-sockets={}", sockets + sockets / 4);
    let options: Vec<&str> = ports.iter().chain([&room]).map(String::as_str).collect();
    let watching = Side::connleak_at(&options)?.start()?;
    thread::sleep(CALM);
    let empty_bytes = resident_bytes(&watching)?;
    eprintln!("peers: standing, opening {} connections", plan.standing);
    let _holders = servers
        .iter()
        .zip(&shares)
        .map(|(server, &share)| Holder::start(server.port(), share))
        .collect::<Result<Vec<_>>>()?;
    thread::sleep(CALM);
    let per_socket = (resident_bytes(&watching)? - empty_bytes) / f64::from(sockets);
    figures.add(WORKLOAD, CONNLEAK, Quantity::ProcessBytes, per_socket);
    let per_socket = kernel_bytes()? as f64 / f64::from(sockets);
    figures.add(WORKLOAD, CONNLEAK, Quantity::KernelBytes, per_socket);
    let report = watching.end()?.context("connleak has a report")?;
    let seen = report.totals.established_both_ends;
    ensure!(
        seen >= u64::from(sockets),
        "connleak saw {seen} of {sockets} sockets"
    );
    // What a reconcile costs comes once a minute; without it, what comes all the time.
    let mut at_rest = Resting::start(&options, "--reconcile=0s")?;
    for _ in 0..plan.rounds.min(LIST_ROUNDS) {
        let each_s = at_rest.cpu_ms(AT_REST)? / AT_REST.as_secs_f64();
        figures.add(WORKLOAD, CONNLEAK, Quantity::OwnCpuPerSecond, each_s);
    }
    drop(at_rest);
    let mut reconciling = Resting::start(&options, "--reconcile=2s")?;
    for _ in 0..plan.rounds.min(LIST_ROUNDS) {
        let each = reconciling.cpu_ms(AT_REST)? / (AT_REST.as_secs_f64() / 2.0);
        figures.add(WORKLOAD, CONNLEAK, Quantity::ReconcileCpu, each);
    }
    drop(reconciling);
    let connleak = place::connleak()?.display().to_string();
    let mut snapshot = vec![connleak.as_str(), "snapshot"];
    snapshot.extend(ports.iter().map(String::as_str));
    let sides: [(&str, &[&str]); 3] = [
        (CONNLEAK, &snapshot),
        (SS, &["ss", "-tnp"]),
        (NETSTAT, &["netstat", "-tnp"]),
    ];
    for round in 1..=plan.rounds.min(LIST_ROUNDS) {
        for (side, words) in sides {
            eprintln!("peers: standing, list {round} {side}");
            figures.add(
                WORKLOAD,
                side,
                Quantity::List,
                timed_ms(words, plan.standing)?,
            );
        }
    }
    Ok(())
}

/// connleak while nothing begins and nothing ends.
struct Resting(Watching);

impl Resting {
    fn start(options: &[&str], reconcile: &str) -> Result<Self> {
        let options: Vec<&str> = options.iter().copied().chain([reconcile]).collect();
        let watching = Side::connleak_at(&options)?.start()?;
        thread::sleep(CALM);
        Ok(Self(watching))
    }

    /// What it takes of a CPU within `time`.
    fn cpu_ms(&mut self, time: Duration) -> Result<f64> {
        let before_us = self.0.own_cpu_us();
        thread::sleep(time);
        let taken_us = self.0.own_cpu_us() - before_us;
        self.0.ensure_at_work()?;
        Ok(taken_us / 1000.0)
    }
}

/// Parts of `count`, none larger than `most`: of a holder, and of a server, which may have no more
/// files open.
fn shares(count: u32, most: u32) -> Vec<u32> {
    let parts = count.div_ceil(most);
    (0..parts)
        .map(|part| (count * (part + 1) / parts) - (count * part / parts))
        .collect()
}

/// What root may have without CAP_SYS_RESOURCE too.
fn open_files_allowed() -> Result<u32> {
    let limit = open_files()?.rlim_max;
    Ok(limit.min(u64::from(u32::MAX)) as u32)
}

fn open_files() -> Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit is valid for the call.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    ensure!(failed == 0, "failed to read the limit of open files");
    Ok(limit)
}

/// A process that opens connections and keeps them for as long as its handle lives.
struct Holder(Child);

impl Holder {
    fn start(port: u16, count: u32) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let child = child::bound(&mut command)
            .args([HOLD, &port.to_string(), &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start a holder of connections")?;
        let mut holder = Self(child);
        let stdout = holder.0.stdout.take().context("stdout is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.trim() == "held", "the holder says: {line}");
        Ok(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a [`Holder`]'s process does.
pub(crate) fn hold(port: u16, count: u32) -> Result<()> {
    raise_open_files(u64::from(count) + 100)?;
    let connect = |_| TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    let held: Vec<TcpStream> = (0..count)
        .map(connect)
        .collect::<std::io::Result<_>>()
        .with_context(|| format!("failed to open {count} connections"))?;
    println!("held");
    std::io::stdout().flush()?;
    // Until the handle's end of the pipe closes.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(held);
    Ok(())
}

fn raise_open_files(files: u64) -> Result<()> {
    let limit = libc::rlimit {
        rlim_cur: files,
        ..open_files()?
    };
    // SAFETY: the limit is valid for the call.
    let failed = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    ensure!(failed == 0, "failed to allow {files} open files");
    Ok(())
}

/// How long a list takes that has a line for each connection at least: connleak's has one for the
/// server's end only where that is all it knows.
fn timed_ms(words: &[&str], connections: u32) -> Result<f64> {
    let began = Instant::now();
    let output = Command::new(words[0])
        .args(&words[1..])
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("failed to run {words:?}"))?;
    let took = began.elapsed();
    ensure!(
        output.status.success(),
        "{words:?} ended with {}",
        output.status
    );
    let lines = output.stdout.iter().filter(|&&byte| byte == b'\n').count();
    ensure!(
        lines >= connections as usize,
        "{words:?} listed {lines} of {connections} connections"
    );
    Ok(took.as_secs_f64() * 1000.0)
}

fn resident_bytes(watching: &Watching) -> Result<f64> {
    let pid = watching.pid().context("it runs")?;
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
        .with_context(|| format!("failed to find RssAnon in {path}"))?;
    Ok(kib * 1024.0)
}

/// What the maps take that grow with the room for sockets, a fifth of which is free here: they are
/// allocated whole.
fn kernel_bytes() -> Result<u64> {
    let output = Command::new("bpftool")
        .args(["map", "show", "--json"])
        .output()
        .context("failed to run bpftool")?;
    let maps: Vec<Listed> =
        serde_json::from_slice(&output.stdout).context("failed to read what bpftool says")?;
    // IDs go up: the last one of a name is the side's, which started last.
    let last = |name: &str| {
        let map = maps.iter().rfind(|map| map.name == name);
        map.with_context(|| format!("failed to find {name} among the kernel's maps"))
    };
    let mut bytes = 0;
    for name in ["SOCKETS", "SLOTS", "SLOT_KEYS"] {
        bytes += last(name)?.bytes_memlock;
    }
    Ok(bytes)
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    name: String,
    #[serde(default)]
    bytes_memlock: u64,
}
