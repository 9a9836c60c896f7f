//! Traffic: requests on connections that stay open, with nobody watching and with connleak in turn.
//!
//! One load runs through all turns. Begun anew for each, it would be up to 60 % faster or slower by
//! itself, and no median of a few turns makes up for that.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use connleak_tests::server::RedisServer;

use crate::Plan;
use crate::figures::{Figures, Quantity};
use crate::load::Endless;
use crate::programs::{Counting, Programs};
use crate::side::Side;

const WORKLOAD: &str = "traffic";
const TURN: Duration = Duration::from_secs(2);
/// Turns are short, so that what else the machine does meets both sides; there are the more of them.
const TURNS_A_ROUND: u32 = 4;
/// Until a side has taken up what was open before it, and the other side's end is over.
const SETTLES: Duration = Duration::from_secs(1);

pub(crate) fn run(plan: &Plan, figures: &mut Figures) -> Result<()> {
    let server = RedisServer::start()?;
    let mut load = Endless::begin(&server)?;
    let mut sides = [Side::nobody(), Side::connleak(server.port())?];
    let turns = plan.rounds * TURNS_A_ROUND;
    for turn in 1..=turns {
        for side in &sides {
            eprintln!("peers: {WORKLOAD} {turn}/{turns} {}", side.name);
            let mut watching = side.start()?;
            thread::sleep(SETTLES);
            figures.add(WORKLOAD, &side.name, Quantity::Requests, load.speed(TURN)?);
            watching.ensure_at_work()?;
        }
        // Whoever is second meets what the first has left behind.
        sides.reverse();
    }
    hooked(&Side::connleak(server.port())?, &mut load, figures)
}

/// How often connleak's programs run meanwhile, and what its process does.
fn hooked(side: &Side, load: &mut Endless, figures: &mut Figures) -> Result<()> {
    let _counting = Counting::begin()?;
    let mut watching = side.start()?;
    thread::sleep(SETTLES);
    let before = Programs::now()?;
    // A process that starts costs a look, and to ask for the programs starts one.
    thread::sleep(SETTLES);
    let before_us = watching.own_cpu_us();
    let requests = load.speed(TURN)? * TURN.as_secs_f64();
    let own_us = watching.own_cpu_us() - before_us;
    let runs = Programs::now()?
        .spent_after(&before.of(&watching.programs))
        .all()
        .runs;
    let each_million = runs as f64 * 1e6 / requests;
    figures.add(WORKLOAD, &side.name, Quantity::RunsPerMillion, each_million);
    let each_s = own_us / 1000.0 / TURN.as_secs_f64();
    figures.add(WORKLOAD, &side.name, Quantity::OwnCpuPerSecond, each_s);
    watching.ensure_at_work()
}
