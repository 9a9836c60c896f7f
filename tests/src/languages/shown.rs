//! What one report shows of one client's call path.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Call, Entry, Shows};
use crate::report::{Frame, Report, StackGroup};

/// The frames of the call path as the report has them, innermost first; none where a note stands
/// for them.
pub struct Shown {
    pub frames: Vec<Frame>,
}

/// Compares the report with the entry: every leaked connection of `pid` is there, with each call of
/// the path in its place, at its line.
pub fn shown(entry: &Entry, report: &Report, pid: u32, orders: u64) -> Result<Shown> {
    let leaked = orders * entry.connections;
    let groups: Vec<&StackGroup> = report.of(pid).flat_map(|opener| &opener.stacks).collect();
    let outstanding: u64 = groups.iter().map(|group| group.outstanding).sum();
    ensure!(
        outstanding == leaked,
        "{outstanding} outstanding, {leaked} leaked"
    );
    if let Shows::Note(expected) = entry.shows {
        for group in &groups {
            let note = group.note.as_deref().unwrap_or_default();
            ensure!(note.contains(expected), "{note:?} instead of {expected:?}");
        }
        return Ok(Shown { frames: Vec::new() });
    }
    if groups.len() as u64 != entry.connections {
        let chains: Vec<String> = groups.iter().map(|group| chain(group)).collect();
        bail!("{} stacks, not\n{}", entry.connections, chains.join("\n"));
    }
    let mut frames = Vec::new();
    for group in groups {
        frames = shown_of(entry, group)?;
    }
    Ok(Shown { frames })
}

/// The frames of the path in one group.
fn shown_of(entry: &Entry, group: &StackGroup) -> Result<Vec<Frame>> {
    let frames = calls_in_order(entry, group)?;
    ensure_site(group, &frames[0])?;
    let label = match entry.shows {
        Shows::Told(label) => Some(label),
        _ => None,
    };
    ensure!(group.note.as_deref() == label, "{:?}", group.note);
    let source = tests_package().join(entry.source);
    for (frame, call) in frames.iter().zip(&entry.calls) {
        ensure_line(frame, call, &source)?;
    }
    Ok(frames)
}

fn chain(group: &StackGroup) -> String {
    let functions: Vec<_> = group.frames.iter().map(name).collect();
    format!("{}; {:?}", functions.join(" < "), group.note)
}

/// The first frame of the name for each call, each outside the one before.
fn calls_in_order(entry: &Entry, group: &StackGroup) -> Result<Vec<Frame>> {
    let source = tests_package().join(entry.source);
    let mut rest = group.frames.iter();
    let mut found = Vec::new();
    for call in &entry.calls {
        let frame = rest
            .find(|frame| is_call(frame, call, &source))
            .with_context(|| format!("no {} at its place in {}", call.function, chain(group)))?;
        found.push(frame.clone());
    }
    Ok(found)
}

/// Libraries have functions of these names too.
fn is_call(frame: &Frame, call: &Call, source: &Path) -> bool {
    let file = frame.file.as_deref().map(Path::new);
    let is_elsewhere = file.is_some_and(|file| file.file_name() != source.file_name());
    !is_elsewhere && has_name(frame, call.function)
}

fn name(frame: &Frame) -> &str {
    frame.function.as_deref().unwrap_or("?")
}

/// `leak::get_client`, `main.getClient`, `Orders.get_client`, `block in main`.
fn has_name(frame: &Frame, name: &str) -> bool {
    let function = frame.function.as_deref().unwrap_or_default();
    function
        .split([':', '.', '#', ' ', '(', '<', '>'])
        .any(|part| part == name)
}

fn ensure_line(frame: &Frame, call: &Call, source: &Path) -> Result<()> {
    let file = frame.file.as_deref().unwrap_or_default();
    ensure!(
        Path::new(file).file_name() == source.file_name(),
        "{} in {file:?}, not {}",
        call.function,
        source.display()
    );
    let line = line_of(call, source)?;
    ensure!(
        frame.line == Some(line),
        "{} at line {:?}, not {line}",
        call.function,
        frame.line
    );
    Ok(())
}

/// The line that a call's text begins on.
fn line_of(call: &Call, source: &Path) -> Result<u32> {
    let text = fs::read_to_string(source)
        .with_context(|| format!("failed to read {}", source.display()))?;
    let (before, after) = text
        .split_once(call.text)
        .with_context(|| format!("{} has no {:?}", source.display(), call.text))?;
    ensure!(
        !after.contains(call.text),
        "{:?} is not one line of {}",
        call.text,
        source.display()
    );
    Ok(before.matches('\n').count() as u32 + 1)
}

fn ensure_site(group: &StackGroup, innermost: &Frame) -> Result<()> {
    let site = group.site.as_ref().context("the stack has a site")?;
    ensure!(
        site.function == innermost.function && site.line == innermost.line,
        "the site is {site:?}, not {innermost:?}"
    );
    Ok(())
}

fn tests_package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
