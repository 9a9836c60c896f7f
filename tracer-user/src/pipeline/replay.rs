//! Replay: a recording told to the state again, without root and without a kernel.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    path::Path,
    sync::Arc,
};

use super::{judging::Judging, state::State};
use crate::{
    decode::{
        open_file::OpenFiles,
        recording::{Entry, Header, Moment, Reader, Reconciled, RecordingError, StackOf},
        socket::{Socket, SocketId},
    },
    report::{Listing, Report},
    sockets::Drift,
    stacks::Stack,
};

/// What a recording says.
#[derive(Debug)]
pub struct Replayed {
    pub report: Report,
    /// The recording was cut short here; the report ends with its last whole entry.
    pub cut: Option<RecordingError>,
}

/// A recording that says nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("{0}; name a file that `connleak trace --record FILE` wrote")]
    Open(#[from] std::io::Error),
    #[error("it is no regular file; copy it to one")]
    NoFile,
    #[error(transparent)]
    Recording(#[from] RecordingError),
}

/// Tells the recording at `path` again.
///
/// # Errors
///
/// It cannot be read, or is damaged; or it was cut short before it said anything.
pub fn replay(path: &Path, judging: &Judging) -> Result<Replayed, ReplayError> {
    // Opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(ReplayError::NoFile);
    }
    let file = BufReader::new(File::open(path)?);
    Ok(replay_from(file, metadata.len(), judging)?)
}

pub(super) fn replay_from(
    input: impl Read,
    length_bytes: u64,
    judging: &Judging,
) -> Result<Replayed, RecordingError> {
    let mut reader = Reader::new(input, length_bytes)?;
    let mut run = match reader.read()? {
        Some((_, Entry::Header(header))) => Run::new(header, judging),
        Some((offset, other)) => {
            return Err(content(offset, &other, "it stands before the header"));
        }
        None => return Err(RecordingError::Magic),
    };
    let cut = loop {
        match reader.read() {
            Ok(Some((offset, entry))) => run
                .tell(&entry)
                .map_err(|cause| content(offset, &entry, &cause))?,
            Ok(None) => break None,
            Err(cut @ RecordingError::Cut { .. }) => break Some(cut),
            Err(error) => return Err(error),
        }
    };
    match (run.moment.take(), cut) {
        (Some(moment), cut) => Ok(Replayed {
            report: run.report(&moment),
            cut,
        }),
        (None, Some(cut)) => Err(cut),
        (None, None) => Err(content(
            length_bytes,
            &Entry::End,
            "the kernel side's numbers are missing",
        )),
    }
}

fn content(offset: u64, entry: &Entry, cause: &str) -> RecordingError {
    RecordingError::Content {
        kind: entry.kind(),
        offset,
        cause: cause.to_owned(),
    }
}

struct Run {
    version: String,
    ports: Vec<u16>,
    probes: BTreeMap<String, String>,
    state: State,
    stacks: Vec<Arc<Stack>>,
    moment: Option<Moment>,
}

impl Run {
    fn new(header: Header, judging: &Judging) -> Self {
        Self {
            state: State::recorded(&header, judging.clone()),
            version: header.version,
            ports: header.ports,
            probes: header.probes,
            stacks: Vec::new(),
            moment: None,
        }
    }

    fn tell(&mut self, entry: &Entry) -> Result<(), String> {
        let state = &mut self.state;
        match entry {
            Entry::Header(_) => return Err("a second header".to_owned()),
            Entry::Event(bytes) => {
                state.take_event(bytes).map_err(|error| error.to_string())?;
            }
            Entry::OpenFiles(bytes) => {
                let files = OpenFiles::new(bytes.clone()).map_err(|error| error.to_string())?;
                state.take_open_files(files.files(&self.ports));
            }
            Entry::Repaired(id, record) => {
                let record = record
                    .as_ref()
                    .map(|record| Socket::from_record(*id, record));
                state.take_repair(SocketId(*id), record.as_ref());
            }
            Entry::Gone(id) => state.take_gone(SocketId(*id)),
            Entry::Reconciled(Reconciled {
                since_start,
                latest,
            }) => {
                state.drift = drift(*since_start);
                state.latest_drift = drift(*latest);
                state.count_all();
            }
            Entry::Process(facts) => {
                if let (Some(uid), Some(user)) = (facts.process.uid, &facts.user) {
                    state.host.add_user(uid, user.clone());
                }
                state.processes.set(facts.key, facts.process.clone());
            }
            Entry::Stack(stack) => self.stacks.push(Arc::new(stack.clone())),
            Entry::StackOf(StackOf {
                socket,
                opened_ns,
                stack,
            }) => {
                let known = self
                    .stacks
                    .get(*stack as usize)
                    .ok_or_else(|| format!("stack {stack} does not stand before it"))?;
                state.take_stack(SocketId(*socket), *opened_ns, Arc::clone(known));
            }
            Entry::QueueFull(id) => state.take_queue_full(SocketId(*id)),
            Entry::Moment(moment) => {
                // The first is of the start.
                if self.moment.is_none() {
                    state.begin(moment.now_ns);
                }
                state.look(moment.now_ns);
                self.moment = Some(moment.clone());
            }
            Entry::End => {}
        }
        Ok(())
    }

    fn report(mut self, moment: &Moment) -> Report {
        let mut report = self
            .state
            .report(&self.ports, self.probes, moment, Listing::FULL);
        report.version = self.version;
        report
    }
}

fn drift([missed_notice, gone, untracked]: [u64; 3]) -> Drift {
    Drift {
        missed_notice,
        gone,
        untracked,
    }
}
