//! The metrics: what a host tells other machines, as series and as digests.
//!
//! Text that a traced process chose is cleaned, and escaped as each format wants.

mod digest;
mod exposition;
mod metric;
mod otlp;
mod prometheus;
mod series;
#[cfg(test)]
mod series_tests;
mod slots;
mod stack_id;

pub use digest::{Digest, DigestOpener, DigestSite};
pub use exposition::Exposition;
pub use metric::{Family, Kind, Point};
pub use otlp::{Span, otlp};
pub use prometheus::prometheus;
pub use series::Series;
pub use stack_id::stack_id;
