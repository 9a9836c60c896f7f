//! The reader: a window of the history as a report.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use serde::de::DeserializeOwned;

use super::error::{HistoryError, is_damage};
use super::file::version;
use super::schema::VERSION;
use crate::policy::decision::Act;
use crate::report::Report;
use crate::report::model::{
    OpenerReport, SiteReport, SiteTotals, StackReport, Totals, Trend, UnitReport,
};
use crate::report::timeline::{ActionReport, LevelChangeReport, SampleReport, Timeline};

/// Openers that came and went are many in a week; a report has the ones with the most.
const OPENERS_MAX: i64 = 10_000;

/// Both ends belong to it; seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub since_s: i64,
    pub until_s: i64,
}

pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

/// What is not in the file at all, or not as JSON.
enum Failure {
    Sqlite(rusqlite::Error),
    Json(serde_json::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

impl Reader {
    /// # Errors
    ///
    /// There is none, or none that this version reads.
    pub fn open(path: &Path) -> Result<Self, HistoryError> {
        if !path.exists() {
            return Err(HistoryError::Missing {
                path: path.to_owned(),
            });
        }
        let failed = |source| failure(path, Failure::Sqlite(source));
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
        connection
            .busy_timeout(Duration::from_secs(5))
            .map_err(failed)?;
        let version = version(&connection).map_err(failed)?;
        if version > VERSION {
            return Err(HistoryError::Newer {
                path: path.to_owned(),
                version,
            });
        }
        if version < VERSION {
            // Nobody has written to it yet: only the daemon makes and changes tables.
            return Err(HistoryError::Missing {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            connection,
            path: path.to_owned(),
        })
    }

    /// What was outstanding at the window's last sample; opened, closed and the peak are those of
    /// the window.
    ///
    /// # Errors
    ///
    /// The window has no sample, or the file cannot be read.
    pub fn report(&self, window: Window) -> Result<Report, HistoryError> {
        let failed = |error| failure(&self.path, error);
        let last = self.last_sample(window).map_err(failed)?;
        let Some((at_s, mut report)) = last else {
            return Err(HistoryError::Empty {
                since: rfc3339(window.since_s),
                until: rfc3339(window.until_s),
                known: self.known().map_err(failed)?,
            });
        };
        report.started_at = rfc3339(window.since_s);
        report.generated_at = rfc3339(at_s);
        report.openers = self.openers(window, at_s).map_err(failed)?;
        (report.units, report.sites) = sums(&report.openers);
        report.timeline = Some(self.timeline_of(window).map_err(failed)?);
        Ok(report)
    }

    /// How the window went.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn timeline(&self, window: Window) -> Result<Timeline, HistoryError> {
        self.timeline_of(window)
            .map_err(|error| failure(&self.path, error))
    }

    /// The first and the last moment it has.
    fn known(&self) -> Result<Option<(String, String)>, Failure> {
        let select = "SELECT min(at_s), max(at_s) FROM sample";
        let span: (Option<i64>, Option<i64>) = self
            .connection
            .query_row(select, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(match span {
            (Some(first), Some(last)) => Some((rfc3339(first), rfc3339(last))),
            _ => None,
        })
    }

    fn last_sample(&self, window: Window) -> Result<Option<(i64, Report)>, Failure> {
        let select = "SELECT at_s, head, established_both_ends, established_client_ends,
                             close_wait, unattributed, drift
            FROM sample JOIN run ON run.id = run
            WHERE at_s BETWEEN ?1 AND ?2 ORDER BY at_s DESC LIMIT 1";
        let found = self
            .connection
            .query_row(select, params![window.since_s, window.until_s], |row| {
                let totals = Totals {
                    established_both_ends: row.get(2)?,
                    established_client_ends: row.get(3)?,
                    close_wait: row.get(4)?,
                    unattributed: row.get(5)?,
                    drift: row.get(6)?,
                    ..Totals::default()
                };
                Ok((row.get(0)?, row.get::<_, String>(1)?, totals))
            })
            .optional()?;
        let Some((at_s, head, totals)) = found else {
            return Ok(None);
        };
        let report: Report = serde_json::from_str(&head)?;
        Ok(Some((at_s, Report { totals, ..report })))
    }

    fn openers(&self, window: Window, at_s: i64) -> Result<Vec<OpenerReport>, Failure> {
        let mut stacks = self.stacks(at_s)?;
        let select = "
            WITH passed AS (
                SELECT opener, sum(opened) AS opened, sum(closed) AS closed,
                       max(outstanding) AS peak
                FROM opener_sample WHERE at_s BETWEEN ?1 AND ?2 GROUP BY opener
            )
            SELECT opener.id, pid, start_ms, name.value, cmdline.value, unit.value,
                   container.value, user.value, netns, passed.opened, passed.closed, peak,
                   coalesce(now.outstanding, 0), coalesce(now.established, 0),
                   coalesce(now.close_wait, 0), now.oldest_age_s, verdict.value, now.facts
            FROM passed JOIN opener ON opener.id = passed.opener
            LEFT JOIN opener_sample now ON now.at_s = ?3 AND now.opener = opener.id
            LEFT JOIN text name ON name.id = opener.name
            LEFT JOIN text cmdline ON cmdline.id = opener.cmdline
            LEFT JOIN text unit ON unit.id = opener.unit
            LEFT JOIN text container ON container.id = opener.container
            LEFT JOIN text user ON user.id = opener.user
            LEFT JOIN text verdict ON verdict.id = now.verdict
            ORDER BY coalesce(now.outstanding, 0) DESC, peak DESC, pid LIMIT ?4";
        let mut statement = self.connection.prepare(select)?;
        let mut rows =
            statement.query(params![window.since_s, window.until_s, at_s, OPENERS_MAX])?;
        let mut openers = Vec::new();
        while let Some(row) = rows.next()? {
            let mut opener = opener(row)?;
            opener.stacks = stacks.remove(&row.get::<_, i64>(0)?).unwrap_or_default();
            openers.push(opener);
        }
        Ok(openers)
    }

    /// By opener.
    fn stacks(&self, at_s: i64) -> Result<HashMap<i64, Vec<StackReport>>, Failure> {
        let select = "
            SELECT stack_sample.opener, outstanding, oldest_age_s, youngest_age_s, frames,
                   note.value, function.value, file.value, site_line
            FROM stack_sample JOIN stack ON stack.id = stack_sample.stack
            LEFT JOIN text note ON note.id = stack.note
            LEFT JOIN text function ON function.id = site_function
            LEFT JOIN text file ON file.id = site_file
            WHERE at_s = ?1 ORDER BY outstanding DESC, stack.id";
        let mut statement = self.connection.prepare(select)?;
        let mut rows = statement.query(params![at_s])?;
        let mut stacks: HashMap<i64, Vec<StackReport>> = HashMap::new();
        while let Some(row) = rows.next()? {
            let site = SiteReport {
                function: row.get(6)?,
                file: row.get(7)?,
                line: row.get(8)?,
            };
            let is_known = site.function.is_some() || site.file.is_some();
            stacks.entry(row.get(0)?).or_default().push(StackReport {
                outstanding: row.get(1)?,
                oldest_age_s: row.get(2)?,
                youngest_age_s: row.get(3)?,
                site: is_known.then_some(site),
                verdict: None,
                frames: serde_json::from_str(&row.get::<_, String>(4)?)?,
                note: row.get(5)?,
            });
        }
        Ok(stacks)
    }

    fn timeline_of(&self, window: Window) -> Result<Timeline, Failure> {
        Ok(Timeline {
            since: rfc3339(window.since_s),
            until: rfc3339(window.until_s),
            samples: self.samples(window)?,
            level_changes: self.level_changes(window)?,
            actions: self.actions(window)?,
        })
    }

    fn samples(&self, window: Window) -> Result<Vec<SampleReport>, Failure> {
        let select = "SELECT at_s, established_both_ends, established_client_ends, close_wait,
                             outstanding
            FROM sample WHERE at_s BETWEEN ?1 AND ?2 ORDER BY at_s";
        let mut statement = self.connection.prepare(select)?;
        let samples = statement.query_map(params![window.since_s, window.until_s], |row| {
            Ok(SampleReport {
                at: rfc3339(row.get(0)?),
                established_both_ends: row.get(1)?,
                established_client_ends: row.get(2)?,
                close_wait: row.get(3)?,
                outstanding: row.get(4)?,
            })
        })?;
        Ok(samples.collect::<rusqlite::Result<_>>()?)
    }

    fn level_changes(&self, window: Window) -> Result<Vec<LevelChangeReport>, Failure> {
        let select = "SELECT at_s, subject, level_from, level_to, count FROM level_change
            WHERE at_s BETWEEN ?1 AND ?2 ORDER BY id";
        let mut statement = self.connection.prepare(select)?;
        let changes = statement.query_map(params![window.since_s, window.until_s], |row| {
            Ok(LevelChangeReport {
                at: rfc3339(row.get(0)?),
                subject: row.get(1)?,
                from: row.get(2)?,
                to: row.get(3)?,
                count: row.get(4)?,
            })
        })?;
        Ok(changes.collect::<rusqlite::Result<_>>()?)
    }

    fn actions(&self, window: Window) -> Result<Vec<ActionReport>, Failure> {
        let select = "SELECT at_s, act, outcome, verdict, evidence_file, openers FROM action
            WHERE at_s BETWEEN ?1 AND ?2 ORDER BY id";
        let mut statement = self.connection.prepare(select)?;
        let mut rows = statement.query(params![window.since_s, window.until_s])?;
        let mut actions = Vec::new();
        while let Some(row) = rows.next()? {
            let act: Act = from_json(row, 1)?;
            actions.push(ActionReport {
                at: rfc3339(row.get(0)?),
                id: act.id,
                action: act.rung.name().to_owned(),
                unit: act.unit,
                dry_run: act.dry_run,
                reason: act.reason,
                outcome: some_json(row, 2)?,
                verdict: some_json(row, 3)?,
                evidence_file: row.get(4)?,
                openers: from_json(row, 5)?,
            });
        }
        Ok(actions)
    }
}

fn opener(row: &Row<'_>) -> Result<OpenerReport, Failure> {
    let start_ms: Option<i64> = row.get(2)?;
    let states = [("ESTABLISHED", row.get(13)?), ("CLOSE_WAIT", row.get(14)?)]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(state, count): (&str, u64)| (state.to_owned(), count))
        .collect::<BTreeMap<_, _>>();
    Ok(OpenerReport {
        pid: row.get(1)?,
        inner_pid: None,
        start_time: start_ms.and_then(rfc3339_ms),
        name: row.get(3)?,
        cmdline: some_json(row, 4)?.unwrap_or_default(),
        unit: row.get(5)?,
        container: row.get(6)?,
        pod: None,
        user: row.get(7)?,
        netns: row.get(8)?,
        ended: false,
        outstanding: row.get(12)?,
        peak_outstanding: row.get(11)?,
        opened: row.get(9)?,
        closed: row.get(10)?,
        states,
        oldest_age_s: row.get(15)?,
        trend: Trend {
            verdict: some_json(row, 16)?,
            facts: some_json(row, 17)?.unwrap_or_default(),
            ..Trend::default()
        },
        stacks: Vec::new(),
        sockets: Vec::new(),
    })
}

/// By unit and by site, the most outstanding first; verdicts are kept of openers only.
fn sums(openers: &[OpenerReport]) -> (Vec<UnitReport>, Vec<SiteTotals>) {
    let mut units: BTreeMap<&str, u64> = BTreeMap::new();
    let mut sites: BTreeMap<&SiteReport, u64> = BTreeMap::new();
    for opener in openers {
        if let Some(unit) = &opener.unit {
            *units.entry(unit).or_default() += opener.outstanding;
        }
        for stack in &opener.stacks {
            if let Some(site) = &stack.site {
                *sites.entry(site).or_default() += stack.outstanding;
            }
        }
    }
    let mut units: Vec<UnitReport> = units
        .into_iter()
        .map(|(unit, outstanding)| UnitReport {
            unit: unit.to_owned(),
            outstanding,
            trend: Trend::default(),
        })
        .collect();
    let mut sites: Vec<SiteTotals> = sites
        .into_iter()
        .map(|(site, outstanding)| SiteTotals {
            site: site.clone(),
            outstanding,
            trend: Trend::default(),
        })
        .collect();
    units.sort_by_key(|unit| std::cmp::Reverse(unit.outstanding));
    sites.sort_by_key(|site| std::cmp::Reverse(site.outstanding));
    (units, sites)
}

fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T, Failure> {
    Ok(serde_json::from_str(&row.get::<_, String>(column)?)?)
}

fn some_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<Option<T>, Failure> {
    let text: Option<String> = row.get(column)?;
    Ok(text.as_deref().map(serde_json::from_str).transpose()?)
}

fn failure(path: &Path, error: Failure) -> HistoryError {
    let path = path.to_owned();
    match error {
        Failure::Sqlite(source) if is_damage(&source) => HistoryError::Damaged {
            path,
            cause: source.to_string(),
        },
        Failure::Sqlite(source) => HistoryError::Sqlite { path, source },
        Failure::Json(source) => HistoryError::Json { path, source },
    }
}

fn rfc3339(at_s: i64) -> String {
    Timestamp::from_second(at_s)
        .map(|time| time.to_string())
        .unwrap_or_default()
}

fn rfc3339_ms(at_ms: i64) -> Option<String> {
    let time = Timestamp::from_millisecond(at_ms).ok()?;
    Some(format!("{time:.3}"))
}
