//! A process: who it is for good, and what /proc says of it.

mod cgroup;
#[doc(hidden)]
pub mod fuzz;
mod identity;
mod pod;
mod resolve;

pub use cgroup::{Placement, placement};
pub use identity::ProcessKey;
pub use pod::Pod;
pub use resolve::{Process, Processes, netns_of_link};
