//! The file: opened whole or set aside, and written one entry a transaction.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde_json::Value;

use super::Settings;
use super::entry::{Action, Entry, LevelChange, Sample};
use super::error::{HistoryError, is_damage};
use super::schema::{MIGRATIONS, VERSION};
use super::thinning::{self, SEEN_APART_S};
use crate::accounting::Verdict;
use crate::report::Report;
use crate::report::model::{OpenerReport, StackReport};

/// A command line longer than this says nothing more to a person.
const CMDLINE_MAX_BYTES: usize = 4096;
/// How often what is too old is looked for.
const THIN_APART_S: i64 = 600;

/// A process as the report names it.
type OpenerKey = (Option<u32>, Option<String>);

#[derive(Clone, Copy, Default)]
struct Tally {
    opened: u64,
    closed: u64,
}

pub(super) struct HistoryFile {
    connection: Connection,
    settings: Settings,
    /// Of the last sample, to keep what was added since.
    tallies: HashMap<OpenerKey, Tally>,
    thinned_at_s: i64,
}

impl HistoryFile {
    /// Opens the file, or makes it.
    pub(super) fn open(settings: &Settings) -> Result<Self, HistoryError> {
        let path = &settings.file;
        prepare(path).map_err(|source| HistoryError::Folder {
            path: path.clone(),
            source,
        })?;
        let failed = |source| HistoryError::Sqlite {
            path: path.clone(),
            source,
        };
        let mut connection = Connection::open(path).map_err(failed)?;
        check(&connection, path)?;
        set_up(&mut connection).map_err(failed)?;
        Ok(Self {
            connection,
            settings: settings.clone(),
            tallies: HashMap::new(),
            thinned_at_s: 0,
        })
    }

    /// Moves a damaged file out of the way, over an earlier one; the path it has then.
    pub(super) fn set_aside(path: &Path) -> Result<PathBuf, HistoryError> {
        let beside = with_suffix(path, ".damaged");
        let moved = || -> io::Result<()> {
            fs::rename(path, &beside)?;
            // SQLite finds the log of a file by its name.
            let log = with_suffix(path, "-wal");
            match fs::rename(&log, with_suffix(&beside, "-wal")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            match fs::remove_file(with_suffix(path, "-shm")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        };
        moved().map_err(|source| HistoryError::SetAside {
            path: path.to_owned(),
            source,
        })?;
        Ok(beside)
    }

    pub(super) fn keep(&mut self, entry: &Entry) -> Result<(), HistoryError> {
        let kept = match entry {
            Entry::Sample(sample) => self.sample(sample),
            Entry::LevelChange(change) => self.level_change(change),
            Entry::Action(action) => self.action(action),
            Entry::Outcome { id, outcome } => self.amend("outcome", *id, &json(outcome)),
            Entry::Verdict { id, verdict } => self.amend("verdict", *id, &json(verdict)),
        };
        kept.map_err(|source| HistoryError::Sqlite {
            path: self.settings.file.clone(),
            source,
        })
    }

    fn sample(&mut self, sample: &Sample) -> rusqlite::Result<()> {
        let Sample { at_s, report } = sample;
        let at_s = *at_s;
        let transaction = self.connection.transaction()?;
        let run = run(&transaction, report)?;
        let totals = &report.totals;
        let outstanding: u64 = report.openers.iter().map(|opener| opener.outstanding).sum();
        // The wall clock may have been set back: the later sample of a second is the one kept.
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO sample VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                at_s,
                run,
                totals.established_both_ends,
                totals.established_client_ends,
                totals.close_wait,
                totals.unattributed,
                totals.drift,
                outstanding,
            ])?;
        let boot = text(&transaction, &report.boot_id)?;
        let mut tallies = HashMap::new();
        for opener in &report.openers {
            let key = (opener.pid, opener.start_time.clone());
            let now = Tally {
                opened: opener.opened.unwrap_or(0),
                closed: opener.closed.unwrap_or(0),
            };
            let before = self.tallies.get(&key).copied().unwrap_or_default();
            // A tracer that was started anew counts from zero again.
            let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
            let added = Tally {
                opened: since(now.opened, before.opened),
                closed: since(now.closed, before.closed),
            };
            tallies.insert(key, now);
            if opener.outstanding > 0 || added.opened > 0 || added.closed > 0 {
                keep_opener(&transaction, at_s, boot, opener, added)?;
            }
        }
        transaction.commit()?;
        self.tallies = tallies;
        if (at_s - self.thinned_at_s).abs() >= THIN_APART_S {
            self.thinned_at_s = at_s;
            thinning::by_age(&self.connection, &self.settings, at_s)?;
        }
        thinning::by_size(&self.connection, &self.settings)
    }

    fn level_change(&self, change: &LevelChange) -> rusqlite::Result<()> {
        let insert = "INSERT INTO level_change (at_s, subject, level_from, level_to, count)
                      VALUES (?1, ?2, ?3, ?4, ?5)";
        self.connection.prepare_cached(insert)?.execute(params![
            change.at_s,
            change.subject,
            change.from.name(),
            change.to.name(),
            change.count,
        ])?;
        Ok(())
    }

    fn action(&self, action: &Action) -> rusqlite::Result<()> {
        let file = action.evidence_file.as_ref();
        let insert = "INSERT INTO action (at_s, action_id, unit, act, evidence_file, openers)
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.connection.prepare_cached(insert)?.execute(params![
            action.at_s,
            action.act.id,
            action.act.unit,
            json(&action.act),
            file.map(|file| file.display().to_string()),
            without_sockets(&action.openers).to_string(),
        ])?;
        Ok(())
    }

    /// The newest action of that number: a state that was lost counts from one again.
    fn amend(&self, column: &str, id: u64, value: &str) -> rusqlite::Result<()> {
        let update = format!(
            "UPDATE action SET {column} = ?2
             WHERE id = (SELECT max(id) FROM action WHERE action_id = ?1)"
        );
        self.connection.execute(&update, params![id, value])?;
        Ok(())
    }
}

fn prepare(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    // SQLite's own files follow the mode of this one: command lines are not for everybody.
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map(drop)
}

/// That the file is whole, and of a version that is known here.
fn check(connection: &Connection, path: &Path) -> Result<(), HistoryError> {
    let failed = |source: rusqlite::Error| match is_damage(&source) {
        true => HistoryError::Damaged {
            path: path.to_owned(),
            cause: source.to_string(),
        },
        false => HistoryError::Sqlite {
            path: path.to_owned(),
            source,
        },
    };
    connection
        .busy_timeout(Duration::from_secs(5))
        .map_err(failed)?;
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(failed)?;
    if found != "ok" {
        return Err(HistoryError::Damaged {
            path: path.to_owned(),
            cause: found,
        });
    }
    let version = version(connection).map_err(failed)?;
    if version > VERSION {
        return Err(HistoryError::Newer {
            path: path.to_owned(),
            version,
        });
    }
    Ok(())
}

pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn set_up(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(64);
    // Before the first table, or it would take a vacuum of the whole file.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // A power cut may cost the last minutes, a kill nothing.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update_and_check(None, "journal_size_limit", 4 << 20, |_| Ok(()))?;
    let version = version(connection)?;
    let done = usize::try_from(version).unwrap_or(0);
    for (step, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", step + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

/// The head of the report, which is the same for all samples of a run.
fn run(transaction: &Transaction<'_>, report: &Report) -> rusqlite::Result<i64> {
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

fn keep_opener(
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

fn text(transaction: &Transaction<'_>, value: &str) -> rusqlite::Result<i64> {
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
fn json(value: &impl serde::Serialize) -> String {
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

fn without_sockets(openers: &Value) -> Value {
    let mut openers = openers.clone();
    for opener in openers.as_array_mut().into_iter().flatten() {
        opener["sockets"] = Value::Array(Vec::new());
    }
    openers
}

fn whole(age_s: Option<f64>) -> Option<i64> {
    age_s.map(|age_s| age_s as i64)
}

fn milliseconds(time: &str) -> Option<i64> {
    let time: jiff::Timestamp = time.parse().ok()?;
    Some(time.as_millisecond())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
