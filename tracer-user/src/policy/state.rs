//! The state is what the policy must still know after the daemon died or the machine was rebooted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::decision::{ManualCause, Subject};
use super::rules::Rung;
use super::timestamp::Timestamp;
use super::verify::Verification;

pub const STATE_VERSION: u32 = 1;

/// The running boot and the time in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootTime {
    /// /proc/sys/kernel/random/boot_id
    pub boot_id: String,
    pub now: Timestamp,
}

/// An action that was decided and has no outcome yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    pub id: u64,
    pub unit: String,
    pub rung: Rung,
    pub subject: Subject,
    pub unit_count_before: u32,
    pub decided_at: Timestamp,
    /// Put back as the last action's time if this one was never begun.
    pub previous: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manual {
    pub cause: ManualCause,
    pub since: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    pub version: u32,
    pub boot_id: String,
    pub saved_at: Timestamp,
    /// The last restart or exec.
    pub last_interruption: Option<Timestamp>,
    pub last_client_kill: Option<Timestamp>,
    pub pending: Option<Pending>,
    pub verification: Option<Verification>,
    /// In a row, over all units.
    pub failed_restarts: u32,
    /// Attempts in a row that were not begun.
    pub action_failures: u32,
    pub retry_at: Option<Timestamp>,
    /// How far each unit's ladder was climbed.
    pub climbed: BTreeMap<String, usize>,
    pub manual: Option<Manual>,
    /// Starts of the daemon, this one included.
    pub starts: Vec<Timestamp>,
    pub next_id: u64,
}

impl State {
    /// Of a daemon that never ran here before.
    pub fn first(boot: &BootTime) -> Self {
        Self {
            version: STATE_VERSION,
            boot_id: boot.boot_id.clone(),
            saved_at: boot.now,
            last_interruption: None,
            last_client_kill: None,
            pending: None,
            verification: None,
            failed_restarts: 0,
            action_failures: 0,
            retry_at: None,
            climbed: BTreeMap::new(),
            manual: None,
            starts: Vec::new(),
            next_id: 1,
        }
    }

    /// In place of a stored state that cannot be read: a restart may have just happened, so the
    /// whole cooldown is waited for.
    pub fn unreadable(boot: &BootTime) -> Self {
        Self {
            last_interruption: Some(boot.now),
            last_client_kill: Some(boot.now),
            ..Self::first(boot)
        }
    }

    /// Moves a state stored in an earlier boot to the running one; true if there was a reboot.
    pub(super) fn rebase(&mut self, boot: &BootTime) -> bool {
        if self.boot_id == boot.boot_id {
            return false;
        }
        let saved_at = self.saved_at;
        let times = self
            .last_interruption
            .iter_mut()
            .chain(&mut self.last_client_kill)
            .chain(&mut self.retry_at)
            .chain(self.pending.as_mut().map(|pending| &mut pending.decided_at))
            .chain(
                self.verification
                    .as_mut()
                    .map(|verification| &mut verification.done_at),
            )
            .chain(self.manual.as_mut().map(|manual| &mut manual.since))
            .chain(&mut self.starts);
        for time in times {
            *time = time.rebase(saved_at);
        }
        self.boot_id.clone_from(&boot.boot_id);
        self.saved_at = boot.now;
        true
    }
}
