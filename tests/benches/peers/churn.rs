//! Churn: the same load beside each side in turn; once for its speed, once for its cost.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use connleak_tests::report::Report;
use connleak_tests::server::RedisServer;

use crate::Plan;
use crate::figures::{Figures, Quantity};
use crate::kernel_time::costs;
use crate::load;
use crate::side::Side;

/// What a side does after the load is still its cost.
const AFTERMATH: Duration = Duration::from_millis(500);

pub(crate) fn churn(plan: &Plan, figures: &mut Figures) -> Result<()> {
    let server = RedisServer::start()?;
    let mut sides = vec![
        Side::nobody(),
        Side::connleak(server.port())?,
        Side::every_stack(server.port())?,
    ];
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
            let mut watching = side.start()?;
            let before_us = watching.own_cpu_us();
            let speed = load::churn(server.port(), plan.connections)?;
            thread::sleep(AFTERMATH);
            watching.ensure_at_work()?;
            figures.add(workload, &side.name, Quantity::Requests, speed);
            if watching.pid().is_some() {
                let cpu_us = watching.own_cpu_us() - before_us;
                let each = cpu_us / f64::from(plan.connections);
                figures.add(workload, &side.name, Quantity::OwnCpuPerConnection, each);
            }
            if let Some(report) = watching.end()? {
                what_it_saw(&report, &side.name, plan, figures)?;
            }
        }
    }
    costs(workload, &sides[1..], server.port(), plan, |side, spent| {
        let each_us = spent.all().ns as f64 / 1000.0 / f64::from(plan.connections);
        figures.add(workload, &side.name, Quantity::KernelPerConnection, each_us);
    })
}

/// connleak, by what it reports of a turn: whoever sees nothing is quick.
fn what_it_saw(report: &Report, side: &str, plan: &Plan, figures: &mut Figures) -> Result<()> {
    let opened: u64 = report.openers.iter().filter_map(|it| it.opened).sum();
    ensure!(
        opened >= u64::from(plan.connections),
        "{side} saw {opened} of {} connections",
        plan.connections
    );
    // Those it spares on purpose.
    let spared = |cause: &str| cause == "stack_spared";
    let by_cause = &report.totals.lost;
    let lost: u64 = by_cause
        .iter()
        .filter_map(|(cause, count)| (!spared(cause)).then_some(count))
        .sum();
    figures.add("churn", side, Quantity::Lost, lost as f64);
    let no_stack: u64 = by_cause
        .iter()
        .filter_map(|(cause, count)| cause.starts_with("stack_").then_some(count))
        .sum();
    let walked = opened.saturating_sub(no_stack) as f64 / opened as f64;
    figures.add("churn", side, Quantity::StacksPerConnection, walked);
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
            Err(error) => eprintln!("peers: {} is left out: {error:#}", side.name),
        }
    }
    if !sides.is_empty() {
        sides.push(Side::connleak_with("tracepoint", port)?);
    }
    Ok(sides)
}
