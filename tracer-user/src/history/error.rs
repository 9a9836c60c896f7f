//! What the history cannot do.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;

use super::schema::VERSION;

#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error("failed to find a history at {}; is the daemon running, with [history] enabled?", path.display())]
    Missing { path: PathBuf },
    #[error("failed to open history {}: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("failed to open history {}: a newer connleak wrote it (tables of version {version}, known here is {VERSION}); use that one, or move the file away", path.display())]
    Newer { path: PathBuf, version: i64 },
    #[error("failed to read history {}: it is damaged: {cause}; the daemon sets it aside when it starts", path.display())]
    Damaged { path: PathBuf, cause: String },
    #[error("failed to set the damaged history {} aside: {source}; move it away", path.display())]
    SetAside { path: PathBuf, source: io::Error },
    #[error(
        "failed to find anything between {since} and {until} in the history: {}",
        held(known)
    )]
    Empty {
        since: String,
        until: String,
        /// The first and the last moment it has.
        known: Option<(String, String)>,
    },
    #[error("failed to use history {}: {source}{}", path.display(), remedy(source))]
    Sqlite {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("failed to understand history {}: {source}", path.display())]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
}

impl HistoryError {
    /// Whether no later attempt can read the file.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Sqlite { source, .. } => is_damage(source),
            _ => false,
        }
    }
}

pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

fn held(known: &Option<(String, String)>) -> String {
    match known {
        Some((first, last)) => format!("it holds {first} to {last}"),
        None => "it is empty; the first sample comes within a minute".to_owned(),
    }
}

fn remedy(source: &rusqlite::Error) -> &'static str {
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "; free space, or set [history] max_bytes lower",
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            "; only root may: run it as root"
        }
        _ => "",
    }
}
