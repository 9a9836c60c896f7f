//! What a run of the matrix says: the table, the reasons behind it and the programs' verified sizes.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::matrix::Cell;
use super::protocol::{Outcome, Record, TestRecord};
use super::qemu::tail;
use super::verified::Verified;

const OUTPUT_LINES: usize = 40;

/// Displays what came of the cells; what a reader looks for last stands last.
pub(super) struct Table<'a>(pub(super) &'a [Cell]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(cells) = self;
        failures(f, cells)?;
        skips(f, cells)?;
        write!(f, "{}", Verified::of(cells))?;
        counts(f, cells)
    }
}

fn counts(text: &mut impl Write, cells: &[Cell]) -> fmt::Result {
    writeln!(
        text,
        "{:<7} {:<11} {:>6} {:>6} {:>7} {:>7}  note",
        "KERNEL", "FAMILY", "PASSED", "FAILED", "SKIPPED", "SECONDS"
    )?;
    for cell in cells {
        let seconds = cell.duration().as_secs_f32();
        write!(text, "{:<7} {:<11} ", cell.series, cell.family)?;
        match &cell.outcome {
            Ok(boot) => {
                let release = cell.records().iter().find_map(|record| match record {
                    Record::Booted { kernel, .. } => Some(kernel.as_str()),
                    _ => None,
                });
                writeln!(
                    text,
                    "{:>6} {:>6} {:>7} {seconds:>7.1}  {}",
                    boot.counts.passed,
                    boot.counts.failed,
                    boot.counts.skipped,
                    release.unwrap_or("")
                )?;
            }
            Err(broken) => writeln!(
                text,
                "{:>6} {:>6} {:>7} {seconds:>7.1}  broken: {}",
                "-", "-", "-", broken.cause
            )?,
        }
    }
    Ok(())
}

fn tests(cell: &Cell, outcome: Outcome) -> impl Iterator<Item = &TestRecord> {
    cell.records()
        .iter()
        .filter_map(move |record| match record {
            Record::Test(test) if test.outcome == outcome => Some(test),
            _ => None,
        })
}

fn failures(text: &mut impl Write, cells: &[Cell]) -> fmt::Result {
    for cell in cells {
        for test in tests(cell, Outcome::Failed) {
            writeln!(
                text,
                "---- {} on {} {}: {} ----\n{}\n",
                test.name,
                cell.series,
                cell.family,
                test.reason.as_deref().unwrap_or("failed"),
                tail(&test.output, OUTPUT_LINES)
            )?;
        }
        if let Err(broken) = &cell.outcome {
            writeln!(
                text,
                "---- {} {} broke: {} ----\n{}\n(all of it: {})\n",
                cell.series,
                cell.family,
                broken.cause,
                broken.console_tail,
                broken.console.display()
            )?;
        }
    }
    Ok(())
}

/// Each reason once, with the places where it held.
fn skips(text: &mut impl Write, cells: &[Cell]) -> fmt::Result {
    let mut places: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for cell in cells {
        for test in tests(cell, Outcome::Skipped) {
            let reason = test.reason.as_deref().unwrap_or("no reason given");
            places
                .entry((&test.name, reason))
                .or_default()
                .push(format!("{} {}", cell.series, cell.family));
        }
    }
    for ((name, reason), places) in &places {
        let places = if places.len() == cells.len() {
            "everywhere".to_owned()
        } else {
            places.join(", ")
        };
        writeln!(text, "skipped {name}: {reason} ({places})")?;
    }
    if !places.is_empty() {
        writeln!(text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::vm::kernels::Series;
    use crate::vm::matrix::Family;
    use crate::vm::protocol::Counts;
    use crate::vm::qemu::Boot;

    fn cell(series: Series, records: Vec<Record>) -> Cell {
        Cell {
            series,
            family: Family::Kprobe,
            outcome: Ok(Boot {
                records,
                counts: Counts {
                    passed: 1,
                    failed: 0,
                    skipped: 1,
                },
                duration: Duration::from_secs(3),
            }),
        }
    }

    fn skipped(reason: &str) -> Record {
        Record::Test(TestRecord {
            name: "kernel_x::t".to_owned(),
            outcome: Outcome::Skipped,
            reason: Some(reason.to_owned()),
            output: String::new(),
            duration_ms: 1,
        })
    }

    #[test]
    fn a_reason_that_held_everywhere_is_said_once() {
        let cells = [
            cell(Series::V5_10, vec![skipped("no MPTCP")]),
            cell(Series::V6_1, vec![skipped("no MPTCP")]),
        ];
        let text = Table(&cells).to_string();
        assert_eq!(text.matches("no MPTCP").count(), 1);
        assert!(text.contains("(everywhere)"), "{text}");
    }
}
