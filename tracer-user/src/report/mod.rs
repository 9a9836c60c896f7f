//! A report: what is outstanding, by opener and by stack, for people and for programs.

pub use json::json_of;

mod build;
mod clean;
mod clients;
mod json;
mod listing;
pub mod model;
mod table;

pub use build::{PortStanding, Sources, Tally, build};
pub use clean::clean;
pub use json::json;
pub use listing::{Listing, Whose};
pub use model::Report;
pub use table::{Style, opener_lines, socket_line, table};
