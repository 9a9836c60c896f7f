//! Accounting: whose sockets they are, and how many of each kind.

mod growth;
mod ledger;
mod running;

pub use growth::Growth;
pub use ledger::{Account, Counts, Ledger, Owner, owner};
pub use running::{PortTotals, RunningCounts};
