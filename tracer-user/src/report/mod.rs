//! A report: what is outstanding, by opener and by stack, for people and for programs.

pub use json::json_of;

mod build;
mod clean;
mod clients;
mod diff;
mod json;
pub mod leak;
mod listing;
pub mod model;
mod selection;
mod table;
pub mod timeline;

pub use build::{PortStanding, Sources, Tally, build};
pub use clean::clean;
pub use diff::{Diff, diff, diff_table};
pub use json::{json, json_line};
pub use listing::{Listing, Whose};
pub use model::Report;
pub use selection::Selection;
pub use table::{Style, opener_lines, socket_line, table, table_pieces};
