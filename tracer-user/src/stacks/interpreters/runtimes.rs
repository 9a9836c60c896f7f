//! The runtimes: what is known of each interpreter that was found, and why others are not walked.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::resolver::is_started_at;
use super::super::{ProcessKey, python, ruby};

const REFUSED_MAX: usize = 4_096;
const RUNTIMES_MAX: usize = 16_384;

/// What naming the frames of one process needs to know.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Runtime {
    Python(python::Runtime),
    Php,
    Ruby(ruby::Runtime),
}

/// What is known of each runtime, by the number that comes back with its frames.
#[derive(Debug, Default)]
pub(super) struct Runtimes {
    known: Mutex<BTreeMap<u32, Arc<Runtime>>>,
    /// By PID: when the process began (as in /proc/PID/stat), and why it is not walked.
    refused: Mutex<HashMap<u32, (u64, Arc<str>)>>,
}

impl Runtimes {
    pub(super) fn get(&self, number: u32) -> Option<Arc<Runtime>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&number).map(Arc::clone)
    }

    pub(super) fn refuse(&self, pid: u32, start_ticks: u64, cause: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        // Who still connects is looked at again.
        if refused.len() >= REFUSED_MAX {
            refused.clear();
        }
        refused.insert(pid, (start_ticks, cause.into()));
    }

    pub(super) fn refusal(&self, process: ProcessKey) -> Option<Arc<str>> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let (start_ticks, cause) = refused.get(&process.pid)?;
        is_started_at(process, *start_ticks).then(|| Arc::clone(cause))
    }

    /// The number of an equal runtime, or a new one: the oldest makes room.
    pub(super) fn add(&self, runtime: Runtime) -> u32 {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((number, _)) = known.iter().find(|(_, other)| ***other == runtime) {
            return *number;
        }
        while known.len() >= RUNTIMES_MAX {
            known.pop_first();
        }
        let number = known.last_key_value().map_or(0, |(last, _)| *last) + 1;
        known.insert(number, Arc::new(runtime));
        number
    }
}
