//! Evidence is what was known when an action was decided: on disk before it, completed after.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::policy::decision::{Act, Outcome, Verdict};

pub const SCHEMA: &str = "connleak.evidence/1";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub schema: String,
    pub version: String,
    pub host: String,
    pub boot_id: String,
    /// RFC 3339, UTC.
    pub decided_at: String,
    /// What was decided, and the facts that decided it.
    pub act: Act,
    /// The report of that moment, stacks included.
    pub report: Value,
    /// What carrying it out led to; None until then.
    pub outcome: Option<Outcome>,
    /// The exec's or client-kill's own record.
    pub record: Option<Value>,
    /// Whether it helped; None until verified.
    pub verdict: Option<Verdict>,
    pub completed_at: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    #[error("failed to create evidence directory {}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("failed to write evidence {}: {source}{}", path.display(), remedy(source))]
    Write { path: PathBuf, source: io::Error },
    #[error("failed to read evidence {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free space or set evidence_files lower"
        }
        _ => "",
    }
}

#[derive(Clone, Debug)]
pub struct EvidenceStore {
    directory: PathBuf,
    max_files: usize,
}

impl EvidenceStore {
    pub fn new(directory: PathBuf, max_files: usize) -> Self {
        Self {
            directory,
            max_files,
        }
    }

    /// Writes new evidence; the path it now has. An error is to be said, never to be waited on:
    /// the action follows the policy all the same.
    pub fn write(&self, evidence: &Evidence) -> Result<PathBuf, EvidenceError> {
        let mut builder = DirBuilder::new();
        let created = builder.recursive(true).mode(0o700).create(&self.directory);
        created.map_err(|source| EvidenceError::Directory {
            path: self.directory.clone(),
            source,
        })?;
        self.remove_oldest();
        let path = self.directory.join(file_name(evidence));
        self.put(&path, evidence)?;
        Ok(path)
    }

    /// Adds what became of it. Evidence that was never written (a full disk) is written now.
    pub fn complete(
        &self,
        path: &Path,
        change: impl FnOnce(&mut Evidence),
    ) -> Result<(), EvidenceError> {
        let read = |source| EvidenceError::Read {
            path: path.to_owned(),
            source,
        };
        let text = fs::read(path).map_err(read)?;
        let mut evidence: Evidence =
            serde_json::from_slice(&text).map_err(|error| read(error.into()))?;
        change(&mut evidence);
        self.put(path, &evidence)
    }

    /// The file of action `id`, after the daemon was restarted in between.
    pub fn find(&self, id: u64) -> Option<PathBuf> {
        let middle = format!("-{id:06}-");
        let files = self.files();
        files.into_iter().rev().find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().contains(&middle))
        })
    }

    /// Never half a file under its name: a crash leaves the old one or the new one.
    fn put(&self, path: &Path, evidence: &Evidence) -> Result<(), EvidenceError> {
        let temporary = path.with_extension("json.tmp");
        let written = write_durably(&temporary, path, &self.directory, evidence);
        written.map_err(|source| {
            // What is left of it would only fill the disk further.
            let _ = fs::remove_file(&temporary);
            EvidenceError::Write {
                path: path.to_owned(),
                source,
            }
        })
    }

    /// The oldest first: the names begin with the time.
    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        let mut files: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "json")
            })
            .collect();
        files.sort();
        files
    }

    fn remove_oldest(&self) {
        let files = self.files();
        let surplus = (files.len() + 1).saturating_sub(self.max_files.max(1));
        for path in files.iter().take(surplus) {
            // One that cannot be removed is tried again with the next.
            let _ = fs::remove_file(path);
        }
    }
}

fn write_durably(
    temporary: &Path,
    path: &Path,
    directory: &Path,
    evidence: &Evidence,
) -> io::Result<()> {
    // A left-over of a crash, or a link put there: neither is written through.
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)?;
    let mut text = serde_json::to_vec_pretty(evidence)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    // Without it the rename itself may be lost with the power.
    File::open(directory)?.sync_all()
}

fn file_name(evidence: &Evidence) -> String {
    let stamp: String = evidence
        .decided_at
        .chars()
        .take(19)
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let unit: String = evidence
        .act
        .unit
        .chars()
        .take(100)
        .map(|c| {
            if c.is_ascii_alphanumeric() || ".-_@".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    format!("{stamp}Z-{:06}-{unit}.json", evidence.act.id)
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
