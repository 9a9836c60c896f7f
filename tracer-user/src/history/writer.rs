//! The writer: a thread that keeps entries, so that tracing never waits for a disk.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use super::Settings;
use super::entry::Entry;
use super::error::HistoryError;
use super::file::HistoryFile;

/// Entries that wait for a slow disk: some hours of samples; what comes then is lost, and counted.
const QUEUE: usize = 256;

/// What the writer wants said.
#[derive(Debug)]
pub enum Notice {
    /// The file was damaged, a new one was begun.
    SetAside { path: PathBuf, cause: HistoryError },
    /// Entries are lost from here on.
    Failed(HistoryError),
    /// They are kept again.
    Recovered { lost: u64 },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetAside { path, cause } => write!(
                f,
                "the history was damaged and is set aside as {}, a new one is begun: {cause}",
                path.display()
            ),
            Self::Failed(error) => write!(f, "{error}; the history is incomplete until then"),
            Self::Recovered { lost } => {
                write!(f, "the history is kept again, {lost} entries are lost")
            }
        }
    }
}

pub struct Writer {
    /// None only while it is dropped.
    entries: Option<SyncSender<Entry>>,
    lost: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// # Errors
    ///
    /// The thread could not be started.
    pub fn start(settings: Settings, say: impl Fn(&Notice) + Send + 'static) -> io::Result<Self> {
        let (entries, received) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let mut keeper = Keeper {
            settings,
            file: None,
            failing: false,
            lost: Arc::clone(&lost),
            say: Box::new(say),
        };
        let thread = thread::Builder::new()
            .name("connleak-history".to_owned())
            .spawn(move || keeper.run(&received))?;
        Ok(Self {
            entries: Some(entries),
            lost,
            thread: Some(thread),
        })
    }

    /// Never waits.
    pub fn keep(&self, entry: Entry) {
        let Some(entries) = &self.entries else {
            return;
        };
        match entries.try_send(entry) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Entries that were not kept since the start.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// What waits is written before it ends.
impl Drop for Writer {
    fn drop(&mut self) {
        self.entries = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Keeper {
    settings: Settings,
    file: Option<HistoryFile>,
    /// That it fails has been said.
    failing: bool,
    lost: Arc<AtomicU64>,
    say: Box<dyn Fn(&Notice) + Send>,
}

impl Keeper {
    fn run(&mut self, entries: &Receiver<Entry>) {
        if let Err(error) = self.open() {
            self.fail(error);
        }
        for entry in entries {
            match self.keep(&entry) {
                Ok(()) if self.failing => {
                    self.failing = false;
                    let lost = self.lost.load(Ordering::Relaxed);
                    (self.say)(&Notice::Recovered { lost });
                }
                Ok(()) => {}
                Err(error) => {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    self.fail(error);
                }
            }
        }
    }

    fn keep(&mut self, entry: &Entry) -> Result<(), HistoryError> {
        match self.open()?.keep(entry) {
            Err(error) if error.is_damage() => {
                self.begin_anew(error)?;
                self.open()?.keep(entry)
            }
            kept => kept,
        }
    }

    fn open(&mut self) -> Result<&mut HistoryFile, HistoryError> {
        let file = match self.file.take() {
            Some(file) => file,
            None => match HistoryFile::open(&self.settings) {
                Err(error) if error.is_damage() => {
                    self.begin_anew(error)?;
                    HistoryFile::open(&self.settings)?
                }
                opened => opened?,
            },
        };
        Ok(self.file.insert(file))
    }

    fn begin_anew(&mut self, cause: HistoryError) -> Result<(), HistoryError> {
        self.file = None;
        let path = HistoryFile::set_aside(&self.settings.file)?;
        (self.say)(&Notice::SetAside { path, cause });
        Ok(())
    }

    /// Said once when it begins; the next entry tries again.
    fn fail(&mut self, error: HistoryError) {
        if !self.failing {
            self.failing = true;
            (self.say)(&Notice::Failed(error));
        }
    }
}
