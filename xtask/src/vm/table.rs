//! What a run of the matrix says: the table, the reasons behind it and the programs' verified sizes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use serde::Deserialize;

use super::matrix::Cell;
use super::protocol::{Outcome, Record, TestRecord};
use super::qemu::tail;

const OUTPUT_LINES: usize = 40;

/// Displays what came of the cells; what a reader looks for last stands last.
pub(super) struct Table<'a>(pub(super) &'a [Cell]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(cells) = self;
        failures(f, cells)?;
        skips(f, cells)?;
        verified_instructions(f, cells)?;
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

/// The part of `connleak doctor -o json` that is read here.
#[derive(Debug, Default, Deserialize)]
struct Doctor {
    #[serde(default)]
    programs: Vec<Program>,
}

#[derive(Debug, Deserialize)]
struct Program {
    name: String,
    verified_insns: Option<u64>,
}

/// One row a program, one column a kernel: growth is seen before a kernel's limit is met. 5.10 does not tell (5.16).
fn verified_instructions(text: &mut impl Write, cells: &[Cell]) -> fmt::Result {
    let mut counts = BTreeMap::new();
    let mut series = BTreeSet::new();
    for cell in cells {
        for program in programs(cell) {
            if let Some(instructions) = program.verified_insns {
                series.insert(cell.series);
                let of_program: &mut BTreeMap<_, _> = counts.entry(program.name).or_default();
                of_program.insert(cell.series, instructions);
            }
        }
    }
    if counts.is_empty() {
        return Ok(());
    }
    write!(text, "{:<36}", "VERIFIED INSTRUCTIONS")?;
    for series in &series {
        write!(text, " {series:>9}")?;
    }
    writeln!(text)?;
    for (program, by_series) in &counts {
        write!(text, "{program:<36}")?;
        for series in &series {
            match by_series.get(series) {
                Some(instructions) => write!(text, " {instructions:>9}")?,
                None => write!(text, " {:>9}", "-")?,
            }
        }
        writeln!(text)?;
    }
    writeln!(text)
}

fn programs(cell: &Cell) -> Vec<Program> {
    cell.records()
        .iter()
        .filter_map(|record| match record {
            Record::Captured { output, .. } => serde_json::from_str::<Doctor>(output).ok(),
            _ => None,
        })
        .flat_map(|doctor| doctor.programs)
        .collect()
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

    fn doctor(instructions: u64) -> Record {
        Record::Captured {
            step: "doctor".to_owned(),
            exit: Some(0),
            output: format!(
                "{{\"programs\":[{{\"name\":\"connect\",\"verified_insns\":{instructions}}}]}}"
            ),
        }
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

    #[test]
    fn verified_instructions_are_a_row_a_program_and_a_column_a_kernel() {
        let cells = [
            cell(Series::V6_1, vec![doctor(1234)]),
            cell(Series::V7_2, vec![doctor(1300)]),
        ];
        let text = Table(&cells).to_string();
        let row = text.lines().find(|line| line.starts_with("connect "));
        let words: Vec<&str> = row.expect("a row").split_whitespace().collect();
        assert_eq!(words, ["connect", "1234", "1300"]);
    }

    #[test]
    fn without_a_doctor_there_is_no_table_of_instructions() {
        assert!(
            !Table(&[cell(Series::V6_1, vec![])])
                .to_string()
                .contains("VERIFIED")
        );
    }
}
