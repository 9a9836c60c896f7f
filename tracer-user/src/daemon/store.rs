//! The store keeps the policy's state on disk, so that neither kill -9 nor a reboot shortens a cooldown.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::policy::state::{BootTime, STATE_VERSION, State};

#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("failed to read state {}: {source}; the whole cooldown is waited for", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to write state {}: {source}; a restart of the daemon may forget the cooldown", path.display())]
    Write { path: PathBuf, source: io::Error },
}

pub(super) struct Store {
    directory: PathBuf,
    path: PathBuf,
}

impl Store {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            path: directory.join("state.json"),
        }
    }

    /// None if the daemon never ran here. What cannot be read counts as a restart just now.
    pub(super) fn load(&self, boot: &BootTime) -> (Option<State>, Option<StoreError>) {
        let failed = |source| {
            let error = StoreError::Read {
                path: self.path.clone(),
                source,
            };
            (Some(State::unreadable(boot)), Some(error))
        };
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (None, None),
            Err(error) => return failed(error),
        };
        match serde_json::from_slice::<State>(&text) {
            Ok(state) if state.version == STATE_VERSION => (Some(state), None),
            Ok(state) => failed(io::Error::other(format!(
                "version {} is not known here",
                state.version
            ))),
            Err(error) => failed(error.into()),
        }
    }

    /// On disk when this returns, whole or not at all.
    pub(super) fn save(&self, state: &State) -> Result<(), StoreError> {
        self.write(state).map_err(|source| StoreError::Write {
            path: self.path.clone(),
            source,
        })
    }

    fn write(&self, state: &State) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        let temporary = self.path.with_extension("json.tmp");
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        File::open(&self.directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::timestamp::Timestamp;

    fn boot() -> BootTime {
        BootTime {
            boot_id: "boot".to_owned(),
            now: Timestamp::from_ns(1_000),
        }
    }

    #[test]
    fn state_comes_back_as_it_was() {
        let directory = tempfile::tempdir().expect("temp directory");
        let store = Store::new(&directory.path().join("new"));
        assert!(matches!(store.load(&boot()), (None, None)));
        let state = State {
            last_interruption: Some(Timestamp::from_ns(7)),
            ..State::first(&boot())
        };
        store.save(&state).expect("saved");
        assert_eq!(store.load(&boot()).0, Some(state));
    }

    #[test]
    fn a_broken_state_waits_the_whole_cooldown() {
        let directory = tempfile::tempdir().expect("temp directory");
        fs::write(directory.path().join("state.json"), "{").expect("written");
        let (state, error) = Store::new(directory.path()).load(&boot());
        let state = state.expect("a state");
        assert_eq!(state.last_interruption, Some(boot().now));
        assert!(error.is_some());
    }
}
