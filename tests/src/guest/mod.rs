//! The inside of a test machine: PID 1 that mounts, runs a plan of tests and tells the host what came of each.

mod mounts;
mod poweroff;
mod process;
pub mod protocol;
mod run;

pub use run::{Role, run};
