//! The history: samples, level changes, actions and their evidence, kept in one SQLite file.
//!
//! `writer` is a thread of its own behind a bounded queue: tracing never waits for a disk. It owns
//! the `file`, whose tables are in `schema` and which a sample fills by `rows`; `reader` makes
//! reports of a window of it.

mod entry;
mod error;
mod file;
mod reader;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod thinning;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

pub use entry::{Action, Entry, LevelChange, Sample};
pub use error::HistoryError;
pub use reader::{Reader, Window};
pub use writer::{Notice, Writer};

/// Where the history lies, and its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub file: PathBuf,
    pub retention: Duration,
    pub max_bytes: u64,
}
