//! The rules are everything the policy was told: what is watched, what is allowed, how long it waits.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::level::LevelRule;

/// One kind of action; a unit's list of them is climbed from the gentlest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// Observe only.
    None,
    /// CLIENT KILL of the unit's leaked, idle connections.
    ClientKill,
    /// systemd restarts the unit.
    Restart,
    /// A command, a rollback for instance.
    Exec,
}

impl Rung {
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ClientKill => "client-kill",
            Self::Restart => "restart",
            Self::Exec => "exec",
        }
    }

    /// Whether it interrupts the unit: such actions share one cooldown, and their failures count.
    pub const fn interrupts(self) -> bool {
        matches!(self, Self::Restart | Self::Exec)
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A unit that the configuration allows to be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitRule {
    /// A unit with levels of its own is judged by its own count too.
    pub levels: Option<LevelRule>,
    pub rungs: Vec<Rung>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    pub ports: BTreeMap<u16, LevelRule>,
    pub units: BTreeMap<String, UnitRule>,
    /// Log what would be done, do nothing.
    pub dry_run: bool,
    /// Between two interrupting actions, whatever their units.
    pub cooldown: Duration,
    /// From a restart to the count that must have fallen.
    pub verify_window: Duration,
    /// From there on, how long it must not grow again.
    pub settle_window: Duration,
    /// Growth above this, above HEALTHY, after a restart means that it did not help.
    pub settle_growth_per_minute: f64,
    /// A unit grows when it gains more than this a minute...
    pub min_growth_per_minute: f64,
    /// ...and makes up at least this share of all growth.
    pub min_growth_share: f64,
    /// So many restarts that did not help, one after the other, end in MANUAL.
    pub max_failed_restarts: u32,
    /// An action that could not be begun is tried again after this, doubled each time...
    pub retry_first: Duration,
    /// ...up to this...
    pub retry_max: Duration,
    /// ...until so many attempts have failed.
    pub max_action_failures: u32,
    /// An action without an outcome for this long counts as done, outcome unknown.
    pub action_timeout: Duration,
    pub latency_limit: Duration,
    pub latency_hold: Duration,
    pub redis_hold: Duration,
    pub max_error_replies_per_minute: f64,
    pub max_rejected_per_minute: f64,
    /// More starts of the daemon than this within `daemon_start_window` end in MANUAL.
    pub max_daemon_starts: u32,
    pub daemon_start_window: Duration,
    /// Healthy for this long, MANUAL ends by itself.
    pub manual_clear_after: Duration,
}
