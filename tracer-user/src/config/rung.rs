//! A rung is one kind of action; a unit's list of them is climbed from the gentlest.

use std::fmt;

use serde::{Deserialize, Serialize};

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
