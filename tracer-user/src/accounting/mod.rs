//! Accounting: whose sockets they are, and how many of each kind.

mod ledger;

pub use ledger::{Account, Counts, Ledger, Owner};
