//! The timeline: how a window of time went, from the history.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::model::OpenerReport;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    pub since: String,
    pub until: String,
    /// The oldest first.
    pub samples: Vec<SampleReport>,
    pub level_changes: Vec<LevelChangeReport>,
    pub actions: Vec<ActionReport>,
}

/// The counts of one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleReport {
    pub at: String,
    pub established_both_ends: u64,
    pub established_client_ends: u64,
    pub close_wait: u64,
    pub outstanding: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelChangeReport {
    pub at: String,
    /// `port 6379`, or a unit.
    pub subject: String,
    pub from: String,
    pub to: String,
    pub count: u64,
}

/// Something the daemon did, and what it knew when it decided to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionReport {
    pub at: String,
    /// Names the evidence.
    pub id: u64,
    /// `restart`, `exec`, `client-kill` or `none`.
    pub action: String,
    pub unit: String,
    pub dry_run: bool,
    pub reason: String,
    /// Null until it was carried out.
    pub outcome: Option<Value>,
    /// Null until it was verified.
    pub verdict: Option<Value>,
    pub evidence_file: Option<String>,
    /// The unit's openers at that moment, without their sockets.
    pub openers: Vec<OpenerReport>,
}
