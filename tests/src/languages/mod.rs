//! The languages: real clients that leak along one call path, and what the report shows of each.
//!
//! Each client leaks through `main -> handle_order -> get_client -> connect`. A language is one
//! [`Entry`] of [`entries`]; the README's table is written from what the report said of each.

mod client;
mod entries;
mod programs;
mod shown;
mod table;

use std::process::Command;

use anyhow::Result;

pub use client::LeakingClient;
pub use entries::entries;
pub use shown::{Shown, shown};
pub use table::{readme_table, replaced, written_table};

/// One client library in one language.
pub struct Entry {
    pub language: &'static str,
    pub client: &'static str,
    /// What was done for the report to show this much; empty if nothing.
    pub given: &'static str,
    /// Its source, in the tests package.
    pub source: &'static str,
    /// The program that leaks to this port; host, port and the number of orders are appended.
    pub command: fn(u16) -> Result<Command>,
    /// What the tracer is to be told for it.
    pub tracer_options: &'static [&'static str],
    /// So many are opened for an order, each by a stack of the library's own.
    pub connections: u64,
    /// The call path, innermost first.
    pub calls: [Call; 3],
    pub shows: Shows,
}

/// One call of the path: the function, and the text of the line that it calls from.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub function: &'static str,
    pub text: &'static str,
}

/// How much of the calls the report shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// Function, file and line of each.
    Lines,
    /// Function, file and line of each, and what labels them.
    Told(&'static str),
    /// None of them: what the report says of it.
    Note(&'static str),
}

const fn call(function: &'static str, text: &'static str) -> Call {
    Call { function, text }
}
