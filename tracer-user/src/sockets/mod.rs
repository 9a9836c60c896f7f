//! The watched sockets: a mirror of the kernel side's truth, with holders and stacks beside it.

mod entry;
mod reconcile;
mod table;

pub use entry::{Entry, Held, StackRef, Traffic};
pub use reconcile::{Comparison, Drift};
pub use table::SocketTable;
