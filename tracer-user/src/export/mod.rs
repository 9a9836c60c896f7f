//! The exports: a report in the formats that other people's tools open.
//!
//! Text that a traced process chose is cleaned in all of them, and escaped as each format wants.

mod csv;
mod flamegraph;
mod folded;
mod html;
mod label;
mod ndjson;
mod pprof;

pub use csv::csv;
pub use flamegraph::{FlamegraphError, flamegraph};
pub use folded::folded;
pub use html::html;
pub use ndjson::ndjson;
pub use pprof::pprof;
