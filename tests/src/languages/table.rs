//! The README's table: language, client, and what the report showed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Entry, Shown, Shows};
use crate::report::{Frame, FrameKind};

const BEGIN: &str = "<!-- languages: written by `cargo xtask languages` -->\n";
const END: &str = "<!-- languages: end -->\n";

/// The table as markdown, from what the reports showed.
#[must_use]
pub fn written_table(rows: &[(Entry, Shown)]) -> String {
    let mut table =
        "| language | client | what the report shows | needs |\n|---|---|---|---|\n".to_owned();
    for (entry, shown) in rows {
        let calls: Vec<String> = shown.frames.iter().map(place).collect();
        let what = match entry.shows {
            Shows::Lines | Shows::Told(_) => calls.join(" < "),
            Shows::Note(note) => format!("\"{note}\""),
        };
        let _ = writeln!(
            table,
            "| {} | {} | {what} | {} |",
            entry.language,
            entry.client,
            if entry.given.is_empty() {
                "-"
            } else {
                entry.given
            }
        );
    }
    table
}

/// `` `orders.py:12 get_client` ``
fn place(frame: &Frame) -> String {
    let function = frame.function.as_deref().unwrap_or("?");
    // With its path or without, as the compiler's options have it.
    let function = match frame.kind {
        FrameKind::Native => function.rsplit("::").next().unwrap_or(function),
        _ => function,
    };
    let file = frame.file.as_deref().map(Path::new);
    match (file.and_then(Path::file_name), frame.line) {
        (Some(file), Some(line)) => format!("`{}:{line} {function}`", file.display()),
        _ => format!("`{function}`"),
    }
}

fn readme() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")
}

/// The table that the README has.
pub fn readme_table() -> Result<String> {
    let text = fs::read_to_string(readme()).context("failed to read README.md")?;
    let (_, table, _) = split(&text)?;
    Ok(table.to_owned())
}

/// Puts `table` in the place of the README's.
pub fn replaced(table: &str) -> Result<()> {
    let text = fs::read_to_string(readme()).context("failed to read README.md")?;
    let (before, _, after) = split(&text)?;
    fs::write(readme(), format!("{before}{table}{after}")).context("failed to write README.md")
}

fn split(text: &str) -> Result<(&str, &str, &str)> {
    let lacks = || format!("README.md lacks {BEGIN:?} or {END:?}");
    let from = text.find(BEGIN).with_context(lacks)? + BEGIN.len();
    let to = text.find(END).with_context(lacks)?;
    let table = text.get(from..to).with_context(lacks)?;
    Ok((&text[..from], table, &text[to..]))
}
