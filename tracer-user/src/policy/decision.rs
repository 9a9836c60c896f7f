//! A decision is what the policy wants done or said; carrying it out is the caller's work.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::level::{Level, Thresholds};
use super::observation::RedisState;
use super::rules::Rung;
use super::timestamp::Timestamp;

/// Whose count is judged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    Port(u16),
    Unit(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port {port}"),
            Self::Unit(unit) => f.write_str(unit),
        }
    }
}

/// One unit's share in what was decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnitShare {
    pub outstanding: u32,
    pub growth_per_minute: f64,
    pub pids: Vec<u32>,
}

/// Everything that decided an action: goes into the evidence as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub subject: Subject,
    pub count: u32,
    pub level: Level,
    pub thresholds: Thresholds,
    pub hold_s: f64,
    /// All units with connections there, the one acted on among them.
    pub units: BTreeMap<String, UnitShare>,
    pub growth_outside_units_per_minute: f64,
    pub failed_restarts: u32,
    pub since_last_restart_s: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Act {
    /// Rises with every action, across the daemon's own restarts: names the evidence.
    pub id: u64,
    pub rung: Rung,
    pub unit: String,
    pub dry_run: bool,
    pub reason: String,
    pub facts: Facts,
}

/// Why nothing is done although a count is CRITICAL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "cause")]
pub enum Blocked {
    NoUnits,
    NothingGrows,
    NotAllowed { unit: Option<String> },
    Listener { unit: String },
    ObserveOnly { unit: String },
    Cooldown { unit: String, until: Timestamp },
    Retry { unit: String, at: Timestamp },
    Verifying { unit: String },
    ActionRunning { unit: String },
    Redis { state: RedisState },
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUnits => f.write_str("no unit is configured: observing only"),
            Self::NothingGrows => f.write_str("no opener grows"),
            Self::NotAllowed { unit: Some(unit) } => {
                write!(
                    f,
                    "the growth is in {unit}, which the configuration does not allow"
                )
            }
            Self::NotAllowed { unit: None } => f.write_str("the growth is outside every unit"),
            Self::Listener { unit } => write!(f, "{unit} owns the listening socket"),
            Self::ObserveOnly { unit } => write!(f, "{unit} is observed only"),
            Self::Cooldown { unit, .. } => write!(f, "{unit} grows, the cooldown is running"),
            Self::Retry { unit, .. } => write!(f, "{unit} grows, the last attempt failed"),
            Self::Verifying { unit } => write!(f, "the last action on {unit} is being verified"),
            Self::ActionRunning { unit } => write!(f, "an action on {unit} is running"),
            Self::Redis { state } => {
                write!(f, "redis is {state:?}: no client's restart mends that")
            }
        }
    }
}

/// Why a person is needed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "cause")]
pub enum ManualCause {
    GrowsDespiteRestarts {
        unit: String,
        restarts: u32,
    },
    ActionsFail {
        unit: String,
        attempts: u32,
        error: String,
    },
    Latency {
        limit: Duration,
        lasted: Duration,
    },
    Redis {
        state: RedisState,
        error_replies_per_minute: f64,
        rejected_per_minute: f64,
    },
    DaemonRestarts {
        starts: u32,
        window: Duration,
    },
}

impl fmt::Display for ManualCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GrowsDespiteRestarts { unit, restarts } => {
                write!(
                    f,
                    "{restarts} restarts in a row did not help, the last of {unit}"
                )
            }
            Self::ActionsFail {
                unit,
                attempts,
                error,
            } => {
                write!(f, "{attempts} attempts to act on {unit} failed: {error}")
            }
            Self::Latency { limit, lasted } => {
                write!(f, "redis latency above {limit:?} for {lasted:?}")
            }
            Self::Redis {
                state,
                error_replies_per_minute,
                rejected_per_minute,
            } => write!(
                f,
                "redis is {state:?}, {error_replies_per_minute:.0} error replies and \
                 {rejected_per_minute:.0} rejected connections a minute"
            ),
            Self::DaemonRestarts { starts, window } => {
                write!(f, "the daemon started {starts} times within {window:?}")
            }
        }
    }
}

/// What became of an action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    /// The count fell and stayed.
    Helped {
        count: u32,
        unit_count: u32,
        growth_per_minute: f64,
    },
    NotFallen {
        count: u32,
        unit_count: u32,
    },
    GrowsAgain {
        count: u32,
        unit_count: u32,
        growth_per_minute: f64,
    },
    /// CRITICAL again while it settled, but another unit grows.
    Overtaken {
        by: String,
        count: u32,
    },
    /// The unit did not come back.
    Down {
        error: String,
    },
    /// Nothing was done; it is tried again.
    NotBegun {
        error: String,
    },
    /// The machine was rebooted in between.
    Rebooted,
}

impl Verdict {
    pub fn helped(&self) -> bool {
        matches!(self, Self::Helped { .. })
    }

    /// Whether the unit's next action is the next rung of its ladder.
    pub fn climbs(&self) -> bool {
        matches!(
            self,
            Self::NotFallen { .. } | Self::GrowsAgain { .. } | Self::Down { .. }
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResumedBy {
    Ack,
    HealthyTime,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    Level {
        subject: Subject,
        from: Level,
        to: Level,
        count: u32,
    },
    /// Clients are missing (or are no longer).
    Missing {
        subject: Subject,
        missing: bool,
        count: u32,
        expected_min: u32,
    },
    Act(Box<Act>),
    /// Said once a cause, while a count is CRITICAL.
    Blocked {
        subject: Subject,
        cause: Blocked,
    },
    /// Completes the evidence of action `id`.
    Verified {
        id: u64,
        unit: String,
        rung: Rung,
        verdict: Verdict,
    },
    Retry {
        unit: String,
        at: Timestamp,
        attempt: u32,
        error: String,
    },
    EnterManual {
        cause: ManualCause,
    },
    LeaveManual {
        by: ResumedBy,
    },
}

/// What carrying out an action led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    Done,
    /// Nothing was done: no bus, systemd refused, the command could not be started.
    NotBegun {
        error: String,
    },
    /// The unit was stopped and did not come back.
    Down {
        error: String,
    },
    /// It may have been done: no answer in time, a command that failed half way.
    Uncertain {
        error: String,
    },
}
