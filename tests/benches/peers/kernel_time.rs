//! Kernel time: what the kernel says that each side's programs ran, on the watched port and on others.

use anyhow::{Result, ensure};
use connleak_tests::server::RedisServer;

use crate::Plan;
use crate::figures::{Figures, Quantity};
use crate::load;
use crate::programs::{Counting, Programs, RunTime, Spent};
use crate::side::{CONNLEAK, Side};

/// Cost is far steadier than speed: BPF's run time is counted, not sampled.
const COST_ROUNDS: u32 = 5;

/// Each program by itself, on the watched port.
pub(crate) fn each_program(plan: &Plan, figures: &mut Figures) -> Result<()> {
    let server = RedisServer::start()?;
    let sides = [Side::empty(), Side::connleak(server.port())?];
    let workload = "kernel time";
    costs(workload, &sides, server.port(), plan, |side, spent| {
        // The others run for processes that begin and end.
        let each_time = |spent: &RunTime| spent.runs >= u64::from(plan.connections) / 2;
        for (program, spent) in spent.each().filter(|(_, spent)| each_time(spent)) {
            let name = match side.name.as_str() {
                CONNLEAK => format!("{CONNLEAK}'s {program}"),
                _ => side.name.clone(),
            };
            add(workload, &name, spent, plan, figures);
        }
    })
}

/// All programs together, while connections come and go on a port that nobody watches.
pub(crate) fn other_ports(plan: &Plan, figures: &mut Figures) -> Result<()> {
    let server = RedisServer::start()?;
    let watched = RedisServer::start()?;
    let sides = [Side::empty(), Side::connleak(watched.port())?];
    let workload = "other ports";
    costs(workload, &sides, server.port(), plan, |side, spent| {
        add(workload, &side.name, spent.all(), plan, figures);
    })
}

/// What the programs of each of the `sides` in turn spend.
pub(crate) fn costs(
    workload: &str,
    sides: &[Side],
    port: u16,
    plan: &Plan,
    mut take: impl FnMut(&Side, Spent),
) -> Result<()> {
    let _counting = Counting::begin()?;
    for round in 1..=COST_ROUNDS.min(plan.rounds) {
        for side in sides {
            eprintln!("peers: {workload}, cost {round} {}", side.name);
            take(side, cost(side, port, plan)?);
        }
    }
    Ok(())
}

fn add(workload: &'static str, side: &str, spent: RunTime, plan: &Plan, figures: &mut Figures) {
    let connections = f64::from(plan.connections);
    let (ns, runs) = (spent.ns as f64, spent.runs as f64);
    let each_us = ns / 1000.0 / connections;
    figures.add(workload, side, Quantity::KernelPerEvent, ns / runs);
    figures.add(
        workload,
        side,
        Quantity::RunsPerConnection,
        runs / connections,
    );
    figures.add(workload, side, Quantity::KernelPerConnection, each_us);
}

/// What the side's programs spent while connections came and went on `port`.
fn cost(side: &Side, port: u16, plan: &Plan) -> Result<Spent> {
    let mut watching = side.start()?;
    let before = Programs::now()?;
    load::churn(port, plan.connections)?;
    let after = Programs::now()?;
    watching.ensure_at_work()?;
    let spent = after.spent_after(&before.of(&watching.programs));
    let runs = spent.all().runs;
    ensure!(
        runs >= u64::from(plan.connections),
        "the programs of {} ran {runs} times in {} connections",
        side.name,
        plan.connections
    );
    Ok(spent)
}
