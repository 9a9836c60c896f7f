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
use crate::side::{DAEMON, DAEMON_AFFINITY, DAEMON_CPUSET};
use crate::watching::interrupt;

const WORKLOAD: &str = "pinned";
/// Every thread of the daemon has a name that begins so; a wake-up says no more of whom it wakes.
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
    let group = Cpuset::of(others)?;
    if group.is_none() {
        eprintln!("peers: {WORKLOAD}: this machine gives no cpuset");
    }
    for turn in 1..=plan.rounds {
        let home = home(&server)?;
        let strays = |side: &str, start: &dyn Fn() -> Result<Daemon>| {
            eprintln!("peers: {WORKLOAD} {turn}/{} {side}", plan.rounds);
            strays(start, &server, apart, plan)
        };
        let anywhere = strays(DAEMON, &|| home.start())?;
        figures.add(WORKLOAD, DAEMON, Quantity::Strays, anywhere);
        let elsewhere = strays(DAEMON_AFFINITY, &|| {
            let _others = Affinity::on(others)?;
            home.start()
        })?;
        figures.add(WORKLOAD, DAEMON_AFFINITY, Quantity::Strays, elsewhere);
        if let Some(group) = &group {
            // As systemd has it: what it starts begins in its group.
            let elsewhere = strays(DAEMON_CPUSET, &|| {
                let _others = group.enter()?;
                home.start()
            })?;
            figures.add(WORKLOAD, DAEMON_CPUSET, Quantity::Strays, elsewhere);
        }
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

/// How often a thread of the daemon ran on the CPU `apart` or was woken there, from its start to its
/// end, while connections came and went there.
fn strays(
    start: &dyn Fn() -> Result<Daemon>,
    server: &RedisServer,
    apart: usize,
    plan: &Plan,
) -> Result<f64> {
    let counting = Counting::begin()?;
    let daemon = start()?;
    {
        let _trading = Affinity::on(&[apart])?;
        load::churn(server.port(), plan.connections)?;
    }
    thread::sleep(SETTLES);
    ensure_named(&daemon)?;
    daemon.end(libc::SIGTERM)?;
    let counted = counting.end()?;
    let mut strays = 0.0;
    for map in ["@ran", "@woken"] {
        let by_cpu = counted[map].as_object();
        let by_cpu = by_cpu.with_context(|| format!("failed to see the daemon in {map}"))?;
        strays += by_cpu
            .get(&apart.to_string())
            .and_then(Value::as_f64)
            .unwrap_or(0.0);
    }
    Ok(strays)
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
    fn begin() -> Result<Self> {
        let length = THREADS.len();
        // At a switch the current task is the one that has just run.
        let script = format!(
            "tracepoint:sched:sched_switch /strncmp(comm, \"{THREADS}\", {length}) == 0/ \
             {{ @ran[cpu] = count(); }} \
             tracepoint:sched:sched_wakeup /strncmp(args->comm, \"{THREADS}\", {length}) == 0/ \
             {{ @woken[args->target_cpu] = count(); }}"
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
        interrupt(&mut self.child);
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
