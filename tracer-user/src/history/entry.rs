//! An entry is what the daemon asks the history to keep.

use std::path::PathBuf;

use serde_json::Value;

use crate::policy::decision::{Act, Outcome, Verdict};
use crate::policy::level::Level;
use crate::report::Report;

/// Times are seconds since the Unix epoch, as the wall clock had them.
#[derive(Clone, Debug)]
pub enum Entry {
    Sample(Box<Sample>),
    LevelChange(LevelChange),
    Action(Box<Action>),
    /// What carrying out the action led to.
    Outcome {
        id: u64,
        outcome: Outcome,
    },
    /// Whether it helped.
    Verdict {
        id: u64,
        verdict: Verdict,
    },
}

/// A report of one moment; its list of sockets is not kept.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at_s: i64,
    pub report: Report,
}

#[derive(Clone, Debug)]
pub struct LevelChange {
    pub at_s: i64,
    pub subject: String,
    pub from: Level,
    pub to: Level,
    pub count: u32,
}

#[derive(Clone, Debug)]
pub struct Action {
    pub at_s: i64,
    pub act: Act,
    /// Its file; None where the disk was full.
    pub evidence_file: Option<PathBuf>,
    /// The openers of the unit at that moment, as in a report.
    pub openers: Value,
}
