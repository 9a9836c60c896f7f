//! Pinned machines: CPUs are set apart for trading, and the daemon may use the others only. What of
//! it still runs on one set apart, or is woken there?
//!
//! Trading is the load here, both ends of it on the CPU that is set apart: all that the daemon hears
//! of comes from there.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use connleak_tests::child;
use connleak_tests::daemon::{Daemon, Home};
use connleak_tests::server::RedisServer;
use serde_json::Value;

use crate::Plan;
use crate::cpus::{self, Affinity, Cpuset};
use crate::figures::{Figures, Quantity};
use crate::load;
use crate::side::{self, DAEMON, DAEMON_AFFINITY, DAEMON_CPUSET};

const WORKLOAD: &str = "pinned";
/// Every thread of the daemon's begins so; a wake-up says no more of whom it wakes.
const THREADS: &str = "connleak";
/// Until the counting has begun, and until the daemon has done what the load gave it to do.
const SETTLES: Duration = Duration::from_secs(2);

pub(crate) fn run(plan: &Plan, figures: &mut Figures) -> Result<()> {
    let cpus = cpus::usable()?;
    let Some((&apart, others @ [_, ..])) = cpus.split_last() else {
        eprintln!("peers: {WORKLOAD}: left out, this machine has one CPU");
        return Ok(());
    };
    let server = {
        let _trading = Affinity::on(&[apart])?;
        RedisServer::start()?
    };
    let strays = |daemon: &Daemon| strays(daemon, &server, apart, plan);
    for turn in 1..=plan.rounds {
        eprintln!("peers: {WORKLOAD} {turn}/{} {DAEMON}", plan.rounds);
        let home = home(&server)?;
        let anywhere = home.start()?;
        figures.add(WORKLOAD, DAEMON, Quantity::Strays, strays(&anywhere)?);
        if let Some(group) = Cpuset::of(others)? {
            eprintln!("peers: {WORKLOAD} {turn}/{} {DAEMON_CPUSET}", plan.rounds);
            group.take(anywhere.pid())?;
            figures.add(
                WORKLOAD,
                DAEMON_CPUSET,
                Quantity::Strays,
                strays(&anywhere)?,
            );
            anywhere.end(libc::SIGTERM)?;
        } else {
            drop(anywhere);
        }
        eprintln!("peers: {WORKLOAD} {turn}/{} {DAEMON_AFFINITY}", plan.rounds);
        let elsewhere = {
            let _others = Affinity::on(others)?;
            home.start()?
        };
        figures.add(
            WORKLOAD,
            DAEMON_AFFINITY,
            Quantity::Strays,
            strays(&elsewhere)?,
        );
    }
    Ok(())
}

/// A daemon that reconciles and samples all the time, so that all of its threads have work.
fn home(server: &RedisServer) -> Result<Home> {
    let home = Home::new()?;
    home.configure(server.port(), "", "")?;
    home.change("reconcile = \"1h\"", "reconcile = \"1s\"")?;
    home.change("interval = \"1h\"", "interval = \"1s\"")?;
    Ok(home)
}

/// How often a thread of the daemon ran on the CPU `apart` or was woken there, while connections
/// came and went there.
fn strays(daemon: &Daemon, server: &RedisServer, apart: usize, plan: &Plan) -> Result<f64> {
    ensure_named(daemon)?;
    let counting = Counting::begin(daemon.pid())?;
    {
        let _trading = Affinity::on(&[apart])?;
        load::churn(server.port(), plan.connections)?;
    }
    thread::sleep(SETTLES);
    let counted = counting.end()?;
    let on = |map: &str, cpu: usize| counted[map][cpu.to_string()].as_f64().unwrap_or(0.0);
    let all = counted["@ran"].as_object().map_or(0, serde_json::Map::len);
    ensure!(all > 0, "failed to see the daemon run anywhere");
    Ok(on("@ran", apart) + on("@woken", apart))
}

fn ensure_named(daemon: &Daemon) -> Result<()> {
    for task in fs::read_dir(format!("/proc/{}/task", daemon.pid()))? {
        let name = fs::read_to_string(task?.path().join("comm"))?;
        ensure!(
            name.starts_with(THREADS),
            "a thread of the daemon has the name {name:?}"
        );
    }
    Ok(())
}

/// Where the daemon's threads run and are woken, by bpftrace.
struct Counting {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Counting {
    fn begin(pid: u32) -> Result<Self> {
        // At a switch the current task is the one that has just run.
        let script = format!(
            "tracepoint:sched:sched_switch /pid == {pid}/ {{ @ran[cpu] = count(); }} \
             tracepoint:sched:sched_wakeup \
             /strncmp(args->comm, \"{THREADS}\", {}) == 0/ \
             {{ @woken[args->target_cpu] = count(); }}",
            THREADS.len()
        );
        let mut command = Command::new("bpftrace");
        let mut child = child::bound(&mut command)
            .args(["-f", "json", "-e", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("failed to start bpftrace")?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut String::new())?;
        thread::sleep(SETTLES);
        Ok(Self { child, stdout })
    }

    /// The maps by their names.
    fn end(mut self) -> Result<Value> {
        side::interrupt(&mut self.child);
        let mut text = String::new();
        self.stdout.read_to_string(&mut text)?;
        let mut maps = serde_json::Map::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let mut said: Value = serde_json::from_str(line)?;
            if let Value::Object(data) = said["data"].take() {
                maps.extend(data);
            }
        }
        Ok(Value::Object(maps))
    }
}
