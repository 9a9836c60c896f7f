//! Start: from the start of connleak's process to its word that it traces.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use connleak_tests::{child, place};

use crate::Plan;
use crate::figures::{Figures, Quantity};
use crate::side::CONNLEAK;
use crate::watching::interrupt;

pub(crate) fn run(plan: &Plan, figures: &mut Figures) -> Result<()> {
    let connleak = place::connleak()?;
    for round in 1..=plan.rounds {
        eprintln!("peers: start {round}/{}", plan.rounds);
        let mut command = Command::new(&connleak);
        child::bound(&mut command)
            .args(["trace", "--output=json"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let began = Instant::now();
        let mut tracing = command.spawn().context("failed to start connleak")?;
        let stderr = tracing.stderr.take().context("stderr is piped")?;
        let mut line = String::new();
        BufReader::new(stderr).read_line(&mut line)?;
        let took_ms = began.elapsed().as_secs_f64() * 1000.0;
        interrupt(&mut tracing);
        ensure!(line.starts_with("tracing"), "connleak says: {line}");
        figures.add("start", CONNLEAK, Quantity::Attached, took_ms);
    }
    Ok(())
}
