//! Peers: connleak beside what people would use instead, measured in one run.
//!
//! Sides take turns (A B C A B C ...), so that what else the machine does meets all of them; what
//! counts is the ratio of medians within the run, never a figure alone.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the figures are what it is for, and a run takes minutes"
)]

mod bounds;
mod churn;
mod cpus;
mod figures;
mod kernel_time;
mod load;
mod machine;
mod page;
mod pinned;
mod programs;
mod promptness;
mod side;
mod standing;
mod start;
mod traffic;
mod watching;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use self::figures::Figures;

/// Rounds and sizes; `CONNLEAK_BENCH_*` change them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Turns of each side; the bounds are meant for 15 and more.
    pub(crate) rounds: u32,
    /// Connections a turn of churn.
    pub(crate) connections: u32,
    /// Open connections while standing.
    pub(crate) standing: u32,
}

impl Plan {
    fn of_environment() -> Result<Self> {
        let number = |name: &str, usual: u32| match std::env::var(name) {
            Ok(text) => text
                .parse()
                .with_context(|| format!("failed to read {name}={text}: give a number")),
            Err(_) => Ok(usual),
        };
        Ok(Self {
            rounds: number("CONNLEAK_BENCH_ROUNDS", 7)?.max(1),
            connections: number("CONNLEAK_BENCH_CONNECTIONS", 30_000)?.max(1),
            standing: number("CONNLEAK_BENCH_STANDING", 50_000)?.max(1),
        })
    }
}

type Workload = fn(&Plan, &mut Figures) -> Result<()>;

/// What is done to the machine while it is watched, by name.
const WORKLOADS: [(&str, Workload); 8] = [
    ("churn", churn::churn),
    ("traffic", traffic::run),
    ("kernel-time", kernel_time::each_program),
    ("other-ports", kernel_time::other_ports),
    ("standing", standing::run),
    ("promptness", promptness::run),
    ("start", start::run),
    ("pinned", pinned::run),
];

fn main() -> Result<ExitCode> {
    // cargo bench says --bench to every program.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|it| it != "--bench")
        .collect();
    if let [verb, port, count] = &words[..]
        && verb == standing::HOLD
    {
        standing::hold(port.parse()?, count.parse()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (flags, names): (Vec<_>, Vec<_>) = words.iter().partition(|word| word.starts_with("--"));
    for name in &names {
        if !WORKLOADS.iter().any(|(known, _)| known == name) {
            let known: Vec<_> = WORKLOADS.iter().map(|(name, _)| *name).collect();
            bail!(
                "failed to find workload {name}; there are {}",
                known.join(", ")
            );
        }
    }
    let plan = Plan::of_environment()?;
    let machine = machine::Machine::look();
    for doubt in machine.doubts() {
        eprintln!("peers: {doubt}");
    }
    let _tracefs = machine::mount_tracefs()?;
    let mut figures = Figures::default();
    let mut failed = false;
    for (name, run) in WORKLOADS {
        if !names.is_empty() && !names.iter().any(|wanted| *wanted == name) {
            continue;
        }
        // What took half an hour to measure is not lost to one turn of the last workload.
        if let Err(error) = run(&plan, &mut figures) {
            eprintln!("peers: {name}: ended early, its turns so far count: {error:#}");
            failed = true;
        }
    }
    let checked = bounds::check(&figures);
    let says = |flag: &str| flags.iter().any(|given| *given == flag);
    if says("--json") {
        println!("{}", page::json(&machine, &figures, &checked)?);
    } else {
        print!("{}", page::table(&machine, &figures, &checked));
    }
    let missed = checked.iter().any(|bound| !bound.holds());
    Ok(ExitCode::from(u8::from(
        failed || (says("--check") && missed),
    )))
}
