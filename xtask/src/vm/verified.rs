//! Verified instructions: what each program costs each kernel's verifier, beside what is on record.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::kernels::Series;
use super::matrix::Cell;
use super::protocol::Record;

/// Committed: growth is seen before a kernel's limit is met (a million instructions since 5.2).
const RECORD: &str = include_str!("../../../tests/golden/verified_instructions.txt");
const RECORD_PATH: &str = "tests/golden/verified_instructions.txt";

/// By program and kernel. 5.10 does not tell (5.16).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verified(BTreeMap<String, BTreeMap<String, u64>>);

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

impl Verified {
    pub(super) fn of(cells: &[Cell]) -> Self {
        let mut counts = Self::default();
        for cell in cells {
            for program in programs(cell) {
                if let Some(instructions) = program.verified_insns {
                    counts.set(program.name, cell.series, instructions);
                }
            }
        }
        counts
    }

    fn set(&mut self, program: String, series: Series, instructions: u64) {
        let of_program = self.0.entry(program).or_default();
        of_program.insert(series.name().to_owned(), instructions);
    }

    fn get(&self, program: &str, series: &str) -> Option<u64> {
        self.0.get(program)?.get(series).copied()
    }

    /// Lines read `program series instructions`.
    fn parse(text: &str) -> Self {
        let mut counts = Self::default();
        for line in text.lines() {
            if let [program, series, instructions] = line.split_whitespace().collect::<Vec<_>>()[..]
                && let Ok(instructions) = instructions.parse()
            {
                let of_program = counts.0.entry(program.to_owned()).or_default();
                of_program.insert(series.to_owned(), instructions);
            }
        }
        counts
    }

    /// Puts these on record, and leaves what they do not tell.
    pub(super) fn keep(&self, root: &Path) -> Result<()> {
        let mut record = Self::parse(RECORD);
        for (program, by_series) in &self.0 {
            let of_program = record.0.entry(program.clone()).or_default();
            of_program.extend(by_series.clone());
        }
        let lines: String = record
            .0
            .iter()
            .flat_map(|(program, by_series)| {
                by_series.iter().map(move |(series, instructions)| {
                    format!("{program} {series} {instructions}\n")
                })
            })
            .collect();
        let path = root.join(RECORD_PATH);
        std::fs::write(&path, lines).with_context(|| format!("failed to write {}", path.display()))
    }

    fn table(&self, record: &Self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        let series: BTreeSet<&String> = self.0.values().flat_map(BTreeMap::keys).collect();
        write!(f, "{:<24}", "VERIFIED INSTRUCTIONS")?;
        for series in &series {
            write!(f, " {series:>18}")?;
        }
        writeln!(f)?;
        for program in self.0.keys() {
            write!(f, "{program:<24}")?;
            for series in &series {
                let word = match (self.get(program, series), record.get(program, series)) {
                    (None, _) => "-".to_owned(),
                    (Some(now), Some(before)) if now == before => now.to_string(),
                    (Some(now), Some(before)) => {
                        format!("{now} ({:+})", now.cast_signed() - before.cast_signed())
                    }
                    (Some(now), None) => format!("{now} (new)"),
                };
                write!(f, " {word:>18}")?;
            }
            writeln!(f)?;
        }
        writeln!(f)
    }
}

/// One row a program, one column a kernel, with the difference to the record.
impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table(&Self::parse(RECORD), f)
    }
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
    use super::*;

    struct Against<'a>(&'a Verified, &'a str);

    impl fmt::Display for Against<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.table(&Verified::parse(self.1), f)
        }
    }

    fn row(counts: &Verified, record: &str) -> Vec<String> {
        let text = Against(counts, record).to_string();
        let row = text.lines().find(|line| line.starts_with("connect "));
        let words = row.expect("a row").split_whitespace();
        words.map(str::to_owned).collect()
    }

    #[test]
    fn a_row_is_a_program_and_a_column_a_kernel() {
        let mut counts = Verified::default();
        counts.set("connect".to_owned(), Series::V6_1, 1234);
        counts.set("connect".to_owned(), Series::V7_2, 1300);
        let record = "connect 6.1 1234\nconnect 7.2 1300\n";
        assert_eq!(row(&counts, record), ["connect", "1234", "1300"]);
    }

    #[test]
    fn growth_stands_beside_the_count() {
        let mut counts = Verified::default();
        counts.set("connect".to_owned(), Series::V6_1, 1300);
        let grown = row(&counts, "connect 6.1 1200\n");
        assert_eq!(grown, ["connect", "1300", "(+100)"]);
        assert_eq!(row(&counts, ""), ["connect", "1300", "(new)"]);
    }

    #[test]
    fn without_a_doctor_there_is_no_table() {
        assert_eq!(Verified::default().to_string(), "");
    }

    #[test]
    fn the_record_is_read_whole() {
        let lines = RECORD.lines().count();
        let read: usize = Verified::parse(RECORD).0.values().map(BTreeMap::len).sum();
        assert_eq!(read, lines);
    }
}
