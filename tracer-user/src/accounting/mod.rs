//! Accounting: whose sockets they are, how many of each kind, and what their past says of them.

mod ends;
mod fact;
mod groups;
mod growth;
mod ledger;
mod rates;
mod running;
mod standing;
mod verdict;
#[cfg(test)]
mod verdict_tests;
#[cfg(test)]
mod verdict_world;

pub use fact::{Fact, Part};
pub use groups::{Group, Groups};
pub use growth::{Flow, Growth};
pub use ledger::{Account, Counts, Ledger, Owner, owner};
pub use rates::{Rate, Rates, net_per_minute, seconds_to};
pub use running::{PortTotals, RunningCounts};
pub use standing::Standing;
pub use verdict::{Case, Judgement, Suspicion, Verdict, judge};
