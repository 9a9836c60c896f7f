//! The daemon keeps the policy running: it observes, decides, acts, and says so.

mod act;
pub mod check;
mod control;
mod follow;
mod group;
mod journal;
mod notify;
mod observe;
mod probing;
mod reload;
mod run;
mod standing;
pub mod status;
mod store;
mod words;

pub use control::{Answer, Request, ask};
pub use run::{DaemonOptions, run};
