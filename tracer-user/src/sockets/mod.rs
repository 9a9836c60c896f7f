//! The watched sockets: a mirror of the kernel side's truth, with holders and stacks beside it.

mod reconcile;
mod table;

pub use reconcile::Drift;

pub use table::{Entry, SocketTable, StackRef, Traffic};
