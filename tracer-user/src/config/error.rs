//! An error of the configuration names the file, the line, what is wrong and what to write instead.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::problem::{Problem, Step};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("failed to read configuration {}: {source}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}", Lines(faults))]
    Faults { faults: Vec<Fault> },
}

impl ConfigError {
    /// Was the file read, and is what it says wrong? Then it is wrong until somebody changes it.
    pub fn is_of_content(&self) -> bool {
        match self {
            Self::Read { source, .. } => source.kind() == io::ErrorKind::InvalidData,
            Self::Faults { .. } => true,
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub file: PathBuf,
    /// From 1; 0 when what is missing has no line.
    pub line: usize,
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}",
            self.file.display(),
            self.line.max(1),
            self.message
        )
    }
}

struct Lines<'a>(&'a [Fault]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

pub(super) fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}

/// The line of a value, or of the nearest block around it that the file has.
pub(super) fn locate(text: &str, problem: &Problem) -> usize {
    let Ok(document) = DeTable::parse(text) else {
        return 0;
    };
    let mut nearest: Option<Range<usize>> = None;
    let mut table = Some(document.get_ref());
    let mut array: Option<&[toml::Spanned<DeValue<'_>>]> = None;
    for step in &problem.path {
        let value = match step {
            Step::Key(key) => table.and_then(|table| {
                table
                    .iter()
                    .find(|(name, _)| name.get_ref().as_ref() == *key)
                    .map(|(name, value)| {
                        nearest = Some(name.span());
                        value
                    })
            }),
            Step::Index(index) => array
                .and_then(|values| values.get(*index))
                .inspect(|value| {
                    nearest = Some(value.span());
                }),
        };
        (table, array) = match value.map(toml::Spanned::get_ref) {
            Some(DeValue::Table(inner)) => (Some(inner), None),
            Some(DeValue::Array(inner)) => (None, Some(&**inner)),
            _ => break,
        };
    }
    nearest.map_or(0, |span| line_of(text, span.start))
}

/// serde's words in ours, with the key that was probably meant.
pub(super) fn reword(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field `") else {
        return message
            .replace("unknown variant", "unknown value")
            .replace("missing field", "missing key");
    };
    let Some((unknown, rest)) = rest.split_once('`') else {
        return message.to_owned();
    };
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    let close = known
        .iter()
        .map(|key| (distance(unknown, key), *key))
        .filter(|(steps, key)| *steps <= 2.max(key.len() / 3))
        .min();
    match close {
        Some((_, key)) => format!("unknown key `{unknown}`; did you mean `{key}`?"),
        None => format!("unknown key `{unknown}`; known here: {}", known.join(", ")),
    }
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
