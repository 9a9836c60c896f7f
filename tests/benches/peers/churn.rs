//! Throughput: the same load beside each side in turn; once for its speed, once for its cost.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use connleak_tests::server::RedisServer;
use connleak_tests::{child, place};

use crate::Plan;
use crate::figures::{Figures, Quantity};
use crate::load;
use crate::programs::{Counting, Programs, RunTime};
use crate::side::{CONNLEAK, Side};

/// Cost is far steadier than speed: BPF's run time is counted, not sampled.
const COST_ROUNDS: u32 = 3;
/// What a side does after the load is still its cost.
const AFTERMATH: Duration = Duration::from_millis(500);

pub(crate) fn churn(plan: &Plan, figures: &mut Figures) -> Result<()> {
    let server = RedisServer::start()?;
    let mut sides = vec![Side::nobody(), Side::connleak(server.port())?];
    sides.extend(families(server.port())?);
    sides.extend([
        Side::pid_count(server.port()),
        Side::ustack_count(server.port()),
        Side::tcplife(),
        Side::tcpstates(),
    ]);
    let workload = "churn";
    for round in 1..=plan.rounds {
        for side in &sides {
            eprintln!("peers: {workload} {round}/{} {}", plan.rounds, side.name);
            let watching = side.start()?;
            let before_us = watching.own_cpu_us();
            let speed = load::churn(server.port(), plan.connections)?;
            thread::sleep(AFTERMATH);
            figures.add(workload, &side.name, Quantity::Requests, speed);
            if watching.pid().is_some() {
                let cpu_us = watching.own_cpu_us() - before_us;
                let each = cpu_us / f64::from(plan.connections);
                figures.add(workload, &side.name, Quantity::OwnCpuPerConnection, each);
            }
        }
    }
    let _counting = Counting::begin()?;
    for round in 1..=COST_ROUNDS.min(plan.rounds) {
        for side in &sides[1..] {
            eprintln!("peers: {workload}, cost {round} {}", side.name);
            let spent = cost(side, || load::churn(server.port(), plan.connections))?;
            let each_us = spent.ns as f64 / 1000.0 / f64::from(plan.connections);
            figures.add(workload, &side.name, Quantity::KernelPerConnection, each_us);
        }
    }
    let lost = lost_events(&server, plan.connections)?;
    figures.add(workload, CONNLEAK, Quantity::Lost, lost);
    Ok(())
}

/// connleak with each family of probes, where the kernel has more than tracepoints; where it has
/// not, they are what connleak takes by itself.
fn families(port: u16) -> Result<Vec<Side>> {
    let mut sides = Vec::new();
    for family in ["fentry", "kprobe"] {
        let side = Side::connleak_with(family, port)?;
        match side.start() {
            Ok(_watching) => sides.push(side),
            Err(_) => eprintln!("peers: {} is left out: not with this kernel", side.name),
        }
    }
    if !sides.is_empty() {
        sides.push(Side::connleak_with("tracepoint", port)?);
    }
    Ok(sides)
}

pub(crate) fn other_ports(plan: &Plan, figures: &mut Figures) -> Result<()> {
    let server = RedisServer::start()?;
    let watched = RedisServer::start()?;
    let sides = [Side::empty(), Side::connleak(watched.port())?];
    let _counting = Counting::begin()?;
    for round in 1..=COST_ROUNDS.min(plan.rounds) {
        for side in &sides {
            eprintln!("peers: other ports {round} {}", side.name);
            let spent = cost(side, || load::churn(server.port(), plan.connections))?;
            let each = spent.ns as f64 / spent.runs.max(1) as f64;
            figures.add("other ports", &side.name, Quantity::KernelPerEvent, each);
        }
    }
    Ok(())
}

/// What the side's programs spent while `load` ran.
fn cost(side: &Side, load: impl FnOnce() -> Result<f64>) -> Result<RunTime> {
    let watching = side.start()?;
    let before = Programs::now()?;
    load()?;
    let after = Programs::now()?;
    Ok(after.spent_after(&before.of(&watching.programs)))
}

/// What connleak says it lost, asked of a trace of its own.
fn lost_events(server: &RedisServer, connections: u32) -> Result<f64> {
    let mut trace = Command::new(place::connleak()?);
    child::bound(&mut trace);
    trace.args(["trace", "--output=json", "--for=4s"]);
    trace.arg(format!("--port={}", server.port()));
    trace.stdout(Stdio::piped());
    trace.stderr(Stdio::null());
    let trace = trace.spawn().context("failed to start connleak")?;
    thread::sleep(Duration::from_secs(1));
    load::churn(server.port(), connections)?;
    let output = trace
        .wait_with_output()
        .context("failed to wait for connleak")?;
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("failed to read connleak's report")?;
    let lost = &report["totals"]["lost"];
    let of = |cause: &str| lost[cause].as_f64().unwrap_or(0.0);
    Ok(of("ring_full") + of("map_full") + of("openers_full") + of("stack_full"))
}
