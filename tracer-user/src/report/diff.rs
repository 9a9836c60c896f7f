//! A diff: what grew between two reports, by opener and by site.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::clean::clean;
use super::model::{OpenerReport, Report, StackReport};

pub(super) const SCHEMA: &str = "connleak.diff/1";
/// The start of a process is told by a wall clock that two runs may have read a little apart.
const SAME_START_MS: i64 = 2000;

/// Fields may be added. What is not known is null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// [`SCHEMA`].
    pub schema: String,
    pub before: Side,
    pub after: Side,
    pub growth: i64,
    /// Those that changed, the most growth first.
    pub openers: Vec<OpenerGrowth>,
    /// Over all processes, those that changed, the most growth first.
    pub sites: Vec<SiteGrowth>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    pub generated_at: String,
    pub host: String,
    pub outstanding: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenerGrowth {
    pub pid: Option<u32>,
    pub start_time: Option<String>,
    pub name: Option<String>,
    pub unit: Option<String>,
    pub before: u64,
    pub after: u64,
    pub growth: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteGrowth {
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
    /// Where there is no site: why.
    pub note: Option<String>,
    pub before: u64,
    pub after: u64,
    pub growth: i64,
}

type Place = (Option<String>, Option<String>, Option<u32>, Option<String>);

pub fn diff(before: &Report, after: &Report) -> Diff {
    let sides = (side(before), side(after));
    Diff {
        schema: SCHEMA.to_owned(),
        growth: grown(sides.0.outstanding, sides.1.outstanding),
        before: sides.0,
        after: sides.1,
        openers: openers(before, after),
        sites: sites(before, after),
    }
}

fn side(report: &Report) -> Side {
    Side {
        generated_at: report.generated_at.clone(),
        host: report.host.clone(),
        outstanding: report.openers.iter().map(|opener| opener.outstanding).sum(),
    }
}

fn grown(before: u64, after: u64) -> i64 {
    after.cast_signed().saturating_sub(before.cast_signed())
}

fn openers(before: &Report, after: &Report) -> Vec<OpenerGrowth> {
    let same_boot = before.boot_id == after.boot_id;
    let mut left: Vec<&OpenerReport> = before.openers.iter().collect();
    let mut openers = Vec::new();
    for opener in &after.openers {
        let known = left
            .iter()
            .position(|earlier| same_boot && is_same(earlier, opener))
            .map(|index| left.swap_remove(index));
        let was = known.map_or(0, |earlier| earlier.outstanding);
        openers.push(growth_of(opener, was, opener.outstanding));
    }
    for gone in left {
        openers.push(growth_of(gone, gone.outstanding, 0));
    }
    openers.retain(|opener| opener.growth != 0);
    openers.sort_by_key(|opener| (std::cmp::Reverse(opener.growth), opener.pid));
    openers
}

fn growth_of(opener: &OpenerReport, before: u64, after: u64) -> OpenerGrowth {
    OpenerGrowth {
        pid: opener.pid,
        start_time: opener.start_time.clone(),
        name: opener.name.clone(),
        unit: opener.unit.clone(),
        before,
        after,
        growth: grown(before, after),
    }
}

/// Whether it is the same process; what it runs may have changed.
fn is_same(a: &OpenerReport, b: &OpenerReport) -> bool {
    let start = |opener: &OpenerReport| {
        let start: Timestamp = opener.start_time.as_deref()?.parse().ok()?;
        Some(start.as_millisecond())
    };
    a.pid == b.pid
        && match (start(a), start(b)) {
            (Some(a), Some(b)) => a.abs_diff(b) < SAME_START_MS.unsigned_abs(),
            (a, b) => a == b,
        }
}

fn sites(before: &Report, after: &Report) -> Vec<SiteGrowth> {
    let mut counts: BTreeMap<Place, (u64, u64)> = BTreeMap::new();
    for stack in stacks(before) {
        counts.entry(place(stack)).or_default().0 += stack.outstanding;
    }
    for stack in stacks(after) {
        counts.entry(place(stack)).or_default().1 += stack.outstanding;
    }
    let mut sites: Vec<SiteGrowth> = counts
        .into_iter()
        .map(
            |((function, file, line, note), (before, after))| SiteGrowth {
                function,
                file,
                line,
                note,
                before,
                after,
                growth: grown(before, after),
            },
        )
        .filter(|site| site.growth != 0)
        .collect();
    sites.sort_by_key(|site| std::cmp::Reverse(site.growth));
    sites
}

fn stacks(report: &Report) -> impl Iterator<Item = &StackReport> {
    report.openers.iter().flat_map(|opener| &opener.stacks)
}

fn place(stack: &StackReport) -> Place {
    match &stack.site {
        Some(site) => (site.function.clone(), site.file.clone(), site.line, None),
        None => (None, None, None, stack.note.clone()),
    }
}

/// For people.
pub fn diff_table(diff: &Diff) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = put(&mut text, diff);
    text
}

fn put(text: &mut String, diff: &Diff) -> std::fmt::Result {
    writeln!(
        text,
        "{:+} outstanding: {} at {}, {} at {}",
        diff.growth,
        diff.before.outstanding,
        clean(&diff.before.generated_at),
        diff.after.outstanding,
        clean(&diff.after.generated_at),
    )?;
    if !diff.openers.is_empty() {
        writeln!(
            text,
            "\n{:>8} {:>7} {:>7} {:>8}  {:<24}  NAME",
            "GROWTH", "BEFORE", "AFTER", "PID", "UNIT"
        )?;
    }
    for it in &diff.openers {
        let pid = it.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let unit = clean(it.unit.as_deref().unwrap_or("-"));
        let name = clean(it.name.as_deref().unwrap_or("unattributed"));
        writeln!(
            text,
            "{:>+8} {:>7} {:>7} {pid:>8}  {unit:<24}  {name}",
            it.growth, it.before, it.after
        )?;
    }
    if !diff.sites.is_empty() {
        writeln!(
            text,
            "\n{:>8} {:>7} {:>7}  SITE",
            "GROWTH", "BEFORE", "AFTER"
        )?;
    }
    for it in &diff.sites {
        writeln!(
            text,
            "{:>+8} {:>7} {:>7}  {}",
            it.growth,
            it.before,
            it.after,
            site_line(it)
        )?;
    }
    Ok(())
}

/// `leaker.rs:24 get_client`, or why it is not known.
fn site_line(site: &SiteGrowth) -> String {
    let function = site.function.as_deref().map(clean);
    let file = site.file.as_deref().map(|file| {
        let name = clean(file.rsplit('/').next().unwrap_or(file));
        let line = site.line.map(|line| format!(":{line}"));
        format!("{name}{}", line.unwrap_or_default())
    });
    match (file, function) {
        (Some(file), Some(function)) => format!("{file} {function}"),
        (Some(known), None) | (None, Some(known)) => known,
        (None, None) => clean(site.note.as_deref().unwrap_or("no stack")),
    }
}
