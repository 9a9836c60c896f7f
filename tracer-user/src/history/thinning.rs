//! Thinning: what is older than the retention goes, and the oldest of what exceeds the size.

use rusqlite::{Connection, Result, params};

use super::Settings;

/// Openers and stacks note when they were last seen only this often.
pub(super) const SEEN_APART_S: i64 = 3600;
/// Of the time that is kept, this share goes at once when the file is too large.
const SHARE: i64 = 20;
/// A file that stays too large after so many shares holds something else.
const SHARES_MAX: usize = 40;

/// Removes what is older than the retention.
pub(super) fn by_age(connection: &Connection, settings: &Settings, now_s: i64) -> Result<()> {
    let retention_s = i64::try_from(settings.retention.as_secs()).unwrap_or(i64::MAX);
    let horizon_s = now_s.saturating_sub(retention_s);
    // Seen at the latest when they last said so, and up to so much after it. Looking them up in
    // all samples would cost more than a few that stay.
    let unseen = format!("last_at_s < {}", horizon_s.saturating_sub(SEEN_APART_S));
    remove_before(connection, horizon_s, [&unseen, &unseen])
}

/// Removes the oldest until the file fits.
pub(super) fn by_size(connection: &Connection, settings: &Settings) -> Result<()> {
    for _ in 0..SHARES_MAX {
        if used_bytes(connection)? <= settings.max_bytes {
            return Ok(());
        }
        let span: (Option<i64>, Option<i64>) =
            connection.query_row("SELECT min(at_s), max(at_s) FROM sample", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let (Some(first_s), Some(last_s)) = span else {
            return Ok(());
        };
        let share_s = (last_s - first_s) / SHARE + 1;
        // The latest sample stays: it says what is outstanding.
        let horizon_s = (first_s + share_s).min(last_s);
        if horizon_s == first_s {
            return Ok(());
        }
        remove_before(
            connection,
            horizon_s,
            [
                "id NOT IN (SELECT opener FROM opener_sample)",
                "id NOT IN (SELECT stack FROM stack_sample)",
            ],
        )?;
    }
    Ok(())
}

fn used_bytes(connection: &Connection) -> Result<u64> {
    let pragma =
        |name: &str| -> Result<u64> { connection.pragma_query_value(None, name, |row| row.get(0)) };
    let pages = pragma("page_count")?.saturating_sub(pragma("freelist_count")?);
    Ok(pages.saturating_mul(pragma("page_size")?))
}

/// `unseen`: which openers and which stacks go with the samples.
fn remove_before(connection: &Connection, horizon_s: i64, unseen: [&str; 2]) -> Result<()> {
    let transaction = connection.unchecked_transaction()?;
    for table in [
        "sample",
        "opener_sample",
        "stack_sample",
        "level_change",
        "action",
    ] {
        let delete = format!("DELETE FROM {table} WHERE at_s < ?1");
        transaction.execute(&delete, params![horizon_s])?;
    }
    for (table, unseen) in ["opener", "stack"].into_iter().zip(unseen) {
        transaction.execute(&format!("DELETE FROM {table} WHERE {unseen}"), [])?;
    }
    transaction.execute_batch(
        "DELETE FROM run WHERE id NOT IN (SELECT run FROM sample);
         DELETE FROM text WHERE id NOT IN (
             SELECT boot FROM opener UNION SELECT name FROM opener WHERE name IS NOT NULL
             UNION SELECT cmdline FROM opener WHERE cmdline IS NOT NULL
             UNION SELECT unit FROM opener WHERE unit IS NOT NULL
             UNION SELECT container FROM opener WHERE container IS NOT NULL
             UNION SELECT user FROM opener WHERE user IS NOT NULL
             UNION SELECT note FROM stack WHERE note IS NOT NULL
             UNION SELECT site_function FROM stack WHERE site_function IS NOT NULL
             UNION SELECT site_file FROM stack WHERE site_file IS NOT NULL
             UNION SELECT verdict FROM opener_sample WHERE verdict IS NOT NULL);",
    )?;
    transaction.commit()?;
    connection.execute_batch("PRAGMA incremental_vacuum;")
}
