//! The file: opened whole or set aside, and written one entry a transaction.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, params};
use serde_json::Value;

use super::Settings;
use super::entry::{Action, Entry, LevelChange, Sample};
use super::error::{HistoryError, is_damage};
use super::rows::{self, Tally, json};
use super::schema::{MIGRATIONS, VERSION};
use super::thinning;

/// How often what is too old is looked for.
const THIN_APART_S: i64 = 600;

/// A process as the report names it.
type OpenerKey = (Option<u32>, Option<String>);

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
        let run = rows::run(&transaction, report)?;
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
        let boot = rows::text(&transaction, &report.boot_id)?;
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
                rows::keep_opener(&transaction, at_s, boot, opener, added)?;
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

fn without_sockets(openers: &Value) -> Value {
    let mut openers = openers.clone();
    for opener in openers.as_array_mut().into_iter().flatten() {
        opener["sockets"] = Value::Array(Vec::new());
    }
    openers
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
