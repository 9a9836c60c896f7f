//! The rows of a sample: each process, stack and text is kept once, and named by its number.

use rusqlite::{OptionalExtension, Transaction, params};

use super::thinning::SEEN_APART_S;
use crate::accounting::Verdict;
use crate::report::Report;
use crate::report::model::{OpenerReport, StackReport};

/// A command line longer than this says nothing more to a person.
const CMDLINE_MAX_BYTES: usize = 4096;
/// What a process did.
#[derive(Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) opened: u64,
    pub(super) closed: u64,
}

/// The head of the report, which is the same for all samples of a run.
pub(super) fn run(transaction: &Transaction<'_>, report: &Report) -> rusqlite::Result<i64> {
    let head = json(&Report {
        generated_at: String::new(),
        totals: Default::default(),
        openers: Vec::new(),
        units: Vec::new(),
        sites: Vec::new(),
        servers: Vec::new(),
        timeline: None,
        ..report.clone()
    });
    let known = transaction
        .prepare_cached("SELECT id FROM run WHERE head = ?1")?
        .query_row(params![head], |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        return Ok(id);
    }
    transaction.execute("INSERT INTO run (head) VALUES (?1)", params![head])?;
    Ok(transaction.last_insert_rowid())
}

pub(super) fn keep_opener(
    transaction: &Transaction<'_>,
    at_s: i64,
    boot: i64,
    opener: &OpenerReport,
    added: Tally,
) -> rusqlite::Result<()> {
    let id = opener_id(transaction, at_s, boot, opener)?;
    let states = |name: &str| opener.states.get(name).copied().unwrap_or(0);
    let verdict = opener.trend.verdict.as_ref().map(json);
    // They have numbers, and are never the same twice: only of what a person will ask about.
    let is_leak = opener.trend.verdict.is_some_and(Verdict::is_leak);
    let facts = is_leak.then(|| json(&opener.trend.facts));
    let verdict = some_text(transaction, verdict.as_deref())?;
    let insert =
        "INSERT OR REPLACE INTO opener_sample VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    transaction.prepare_cached(insert)?.execute(params![
        at_s,
        id,
        opener.outstanding,
        states("ESTABLISHED"),
        states("CLOSE_WAIT"),
        opener.opened.map(|_| added.opened),
        opener.closed.map(|_| added.closed),
        whole(opener.oldest_age_s),
        verdict,
        facts,
    ])?;
    for stack in &opener.stacks {
        let stack_id = stack_id(transaction, at_s, stack)?;
        // Two groups that differ in nothing that is kept are one.
        let insert = "INSERT INTO stack_sample VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                      ON CONFLICT DO UPDATE SET outstanding = outstanding + excluded.outstanding";
        transaction.prepare_cached(insert)?.execute(params![
            at_s,
            id,
            stack_id,
            stack.outstanding,
            whole(stack.oldest_age_s),
            whole(stack.youngest_age_s),
        ])?;
    }
    Ok(())
}

fn opener_id(
    transaction: &Transaction<'_>,
    at_s: i64,
    boot: i64,
    opener: &OpenerReport,
) -> rusqlite::Result<i64> {
    let start_ms = opener.start_time.as_deref().and_then(milliseconds);
    let name = some_text(transaction, opener.name.as_deref())?;
    let cmdline = json(&shortened(&opener.cmdline));
    let cmdline = text(transaction, &cmdline)?;
    let unit = some_text(transaction, opener.unit.as_deref())?;
    let container = some_text(transaction, opener.container.as_deref())?;
    // The start is told by the wall clock, which moves a little between two runs of the daemon.
    let select = "SELECT id, last_at_s FROM opener
        WHERE pid IS ?1 AND boot = ?2 AND name IS ?3 AND cmdline IS ?4 AND unit IS ?5
          AND container IS ?6 AND (start_ms IS ?7 OR abs(start_ms - ?7) < 2000)";
    let known: Option<(i64, i64)> = transaction
        .prepare_cached(select)?
        .query_row(
            params![opener.pid, boot, name, cmdline, unit, container, start_ms],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    if let Some((id, last_at_s)) = known {
        seen(transaction, "opener", id, last_at_s, at_s)?;
        return Ok(id);
    }
    let user = some_text(transaction, opener.user.as_deref())?;
    let insert = "INSERT INTO opener
        (boot, pid, start_ms, name, cmdline, unit, container, user, netns, last_at_s)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    transaction.prepare_cached(insert)?.execute(params![
        boot,
        opener.pid,
        start_ms,
        name,
        cmdline,
        unit,
        container,
        user,
        opener.netns,
        at_s
    ])?;
    Ok(transaction.last_insert_rowid())
}

fn stack_id(
    transaction: &Transaction<'_>,
    at_s: i64,
    stack: &StackReport,
) -> rusqlite::Result<i64> {
    let frames = json(&stack.frames);
    let note = some_text(transaction, stack.note.as_deref())?;
    // An index over whole stacks would double the file; the digest only narrows them down.
    let digest = crc32fast::hash(frames.as_bytes());
    let site = stack.site.as_ref();
    let function = some_text(transaction, site.and_then(|site| site.function.as_deref()))?;
    let file = some_text(transaction, site.and_then(|site| site.file.as_deref()))?;
    let line = site.and_then(|site| site.line);
    let select = "SELECT id, last_at_s FROM stack
        WHERE digest = ?1 AND frames = ?2 AND note IS ?3 AND site_function IS ?4
          AND site_file IS ?5 AND site_line IS ?6";
    let known: Option<(i64, i64)> = transaction
        .prepare_cached(select)?
        .query_row(params![digest, frames, note, function, file, line], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    if let Some((id, last_at_s)) = known {
        seen(transaction, "stack", id, last_at_s, at_s)?;
        return Ok(id);
    }
    let insert = "INSERT INTO stack
        (digest, frames, note, site_function, site_file, site_line, last_at_s)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    transaction
        .prepare_cached(insert)?
        .execute(params![digest, frames, note, function, file, line, at_s])?;
    Ok(transaction.last_insert_rowid())
}

fn seen(
    transaction: &Transaction<'_>,
    table: &str,
    id: i64,
    last_at_s: i64,
    at_s: i64,
) -> rusqlite::Result<()> {
    if at_s - last_at_s >= SEEN_APART_S {
        let update = format!("UPDATE {table} SET last_at_s = ?2 WHERE id = ?1");
        transaction
            .prepare_cached(&update)?
            .execute(params![id, at_s])?;
    }
    Ok(())
}

pub(super) fn text(transaction: &Transaction<'_>, value: &str) -> rusqlite::Result<i64> {
    let known = transaction
        .prepare_cached("SELECT id FROM text WHERE value = ?1")?
        .query_row(params![value], |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        return Ok(id);
    }
    transaction
        .prepare_cached("INSERT INTO text (value) VALUES (?1)")?
        .execute(params![value])?;
    Ok(transaction.last_insert_rowid())
}

fn some_text(transaction: &Transaction<'_>, value: Option<&str>) -> rusqlite::Result<Option<i64>> {
    value.map(|value| text(transaction, value)).transpose()
}

/// None of what is kept can fail to be JSON; what does is null.
pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

fn shortened(cmdline: &[String]) -> Vec<String> {
    let mut left = CMDLINE_MAX_BYTES;
    let mut kept = Vec::new();
    for argument in cmdline {
        if left == 0 {
            break;
        }
        let end = argument.floor_char_boundary(left);
        kept.push(argument[..end].to_owned());
        left -= end.min(left);
    }
    kept
}

fn whole(age_s: Option<f64>) -> Option<i64> {
    age_s.map(|age_s| age_s as i64)
}

fn milliseconds(time: &str) -> Option<i64> {
    let time: jiff::Timestamp = time.parse().ok()?;
    Some(time.as_millisecond())
}
