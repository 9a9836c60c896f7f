//! The listing: whose stacks and sockets a report tells one by one. Its counts are of everybody.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    pub whose: Whose,
    /// So many sockets of an opener, the oldest first.
    pub sockets_max: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whose {
    Everybody,
    /// Of the process with this PID; null is for the sockets of which nobody is known.
    Opener(Option<u32>),
    Nobody,
}

impl Listing {
    pub const FULL: Self = Self {
        whose: Whose::Everybody,
        sockets_max: u32::MAX,
    };

    pub(super) fn is_of(self, pid: Option<u32>) -> bool {
        match self.whose {
            Whose::Everybody => true,
            Whose::Opener(wanted) => wanted == pid,
            Whose::Nobody => false,
        }
    }
}
