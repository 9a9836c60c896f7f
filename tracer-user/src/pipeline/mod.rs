//! The pipeline: the only place that sees all stages, from the kernel's events to a report.
//!
//! `tracer` asks the kernel, `intake` takes its notices, and both tell `state`; `recorder` writes
//! down what they tell, and `replay` tells it again from the file.

mod doubt;
#[doc(hidden)]
pub mod fuzz;
mod intake;
mod judging;
mod left_open;
mod namespaces;
mod passing;
mod recorder;
mod replay;
#[cfg(test)]
mod replay_tests;
mod snapshot;
mod standing;
mod state;
mod tracer;

pub use judging::Judging;
pub use recorder::Recorder;
pub use replay::{ReplayError, Replayed, replay};
pub use snapshot::{Snapshot, snapshot};
pub use tracer::Tracer;
