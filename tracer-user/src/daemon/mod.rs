//! The daemon keeps the policy running: it observes, decides, acts, and says so.

mod act;
pub mod check;
mod chronicle;
mod control;
mod due;
mod exports;
mod follow;
mod group;
mod http;
mod journal;
mod metrics;
mod notify;
mod observe;
mod options;
mod otlp;
mod probing;
mod reload;
mod run;
mod standing;
pub mod status;
mod store;
mod stream;
mod usage;
mod words;

pub use control::{Answer, Request, ask};
pub use options::DaemonOptions;
pub use run::run;
