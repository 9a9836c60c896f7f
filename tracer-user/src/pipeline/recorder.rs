//! The recorder: writes down what the state is told.

use std::{
    collections::HashMap,
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Result, anyhow};

use super::state::State;
use crate::{
    decode::{
        recording::{self, Entry, Header, ProcessFacts, Reconciled, SCHEMA, StackOf},
        socket::SocketId,
    },
    kernel::Probes,
    sockets::Drift,
    stacks::Stack,
};

/// Different stacks that are written once; beyond it some are written again.
const STACKS_MAX: usize = 4096;

/// An open recording. After the first failure it writes no more: the trace goes on without it.
pub struct Recorder {
    output: Option<Box<dyn Write + Send>>,
    path: PathBuf,
    stacks: HashMap<Arc<Stack>, u32>,
    stack_count: u32,
    failure: Option<anyhow::Error>,
}

impl Recorder {
    /// Creates the file, or empties it; nobody else may read it, as it holds command lines.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let open = || -> io::Result<BufWriter<std::fs::File>> {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(path)?;
            // Unbuffered: a place that takes nothing says so before anything is attached.
            file.write_all(&recording::preamble())?;
            Ok(BufWriter::new(file))
        };
        let output = open().map_err(|cause| failed_to_write(path, &cause))?;
        Ok(Self::onto(path, Box::new(output)))
    }

    pub(super) fn onto(path: &Path, output: Box<dyn Write + Send>) -> Self {
        Self {
            output: Some(output),
            path: path.to_owned(),
            stacks: HashMap::new(),
            stack_count: 0,
            failure: None,
        }
    }

    /// Why recording stopped; told once.
    pub(super) fn take_failure(&mut self) -> Option<anyhow::Error> {
        self.failure.take()
    }

    pub(super) fn header(&mut self, state: &State, ports: &[u16], probes: &Probes) {
        self.write(&Entry::Header(Header {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: state.host.kernel.clone(),
            host: state.host.name.clone(),
            boot_id: state.host.boot_id.clone(),
            boot_at_ns: i64::try_from(state.clock.boot_at_ns()).unwrap_or_default(),
            started_ns: state.started_ns,
            netns: state.own_netns,
            ports: ports.to_vec(),
            probes: super::tracer::taken(probes),
        }));
    }

    /// What the state looked up since this was last asked.
    pub(super) fn processes(&mut self, state: &mut State) {
        for key in state.processes.take_looked_up() {
            let Some(process) = state.processes.get(key) else {
                continue;
            };
            self.write(&Entry::Process(ProcessFacts {
                key,
                process: process.clone(),
                user: process.uid.map(|uid| state.host.user(uid)),
            }));
        }
    }

    pub(super) fn stack(&mut self, id: SocketId, opened_ns: Option<u64>, stack: &Arc<Stack>) {
        let number = match self.stacks.get(stack) {
            Some(&number) => number,
            None => {
                if self.stacks.len() >= STACKS_MAX {
                    self.stacks.clear();
                }
                self.write(&Entry::Stack(Stack::clone(stack)));
                self.stacks.insert(Arc::clone(stack), self.stack_count);
                self.stack_count += 1;
                self.stack_count - 1
            }
        };
        self.write(&Entry::StackOf(StackOf {
            socket: id.0,
            opened_ns,
            stack: number,
        }));
    }

    pub(super) fn reconciled(&mut self, state: &State) {
        let causes = |drift: Drift| [drift.missed_notice, drift.gone, drift.untracked];
        self.write(&Entry::Reconciled(Reconciled {
            since_start: causes(state.drift),
            latest: causes(state.latest_drift),
        }));
    }

    pub(super) fn write(&mut self, entry: &Entry) {
        let Some(output) = &mut self.output else {
            return;
        };
        let written = entry
            .encode()
            .map_err(anyhow::Error::from)
            .and_then(|bytes| Ok(output.write_all(&bytes)?));
        self.check(written);
    }

    /// Hands the file what is written so far: a crash loses no more than what follows.
    pub(super) fn flush(&mut self) {
        if let Some(output) = &mut self.output {
            let flushed = output.flush().map_err(anyhow::Error::from);
            self.check(flushed);
        }
    }

    fn check(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.failure = Some(failed_to_write(&self.path, &error));
            self.output = None;
        }
    }
}

fn failed_to_write(path: &Path, cause: &dyn std::fmt::Display) -> anyhow::Error {
    let path = path.display();
    anyhow!(
        "failed to write recording {path}: {cause}; name a place with room that you may write to"
    )
}
