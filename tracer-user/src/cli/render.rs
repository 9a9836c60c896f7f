//! Rendering: a report in the format that was asked for.

use std::io::{self, IsTerminal};

use anyhow::{Result, bail};

use super::{args::ReportFormat, output};
use crate::{
    export,
    metrics::{self, Exposition},
    report::{self, Report},
    stacks::SiteRules,
};

/// Prints `report`. `sockets`: one line a socket in the table.
pub(super) fn print(
    report: &Report,
    rules: &SiteRules,
    format: ReportFormat,
    sockets: bool,
) -> Result<()> {
    match format {
        ReportFormat::Table => {
            let style = output::style(sockets);
            output::print_pieces(report::table_pieces(report, rules, style))
        }
        ReportFormat::Json => output::print(&report::json(report)?),
        ReportFormat::Ndjson => output::print(&export::ndjson(report)?),
        ReportFormat::Csv => output::print(&export::csv(report)?),
        ReportFormat::Html => output::print(&export::html(report)?),
        ReportFormat::Folded => output::print(&export::folded(report)),
        ReportFormat::Flamegraph => output::print(&export::flamegraph(report)?),
        ReportFormat::Pprof => {
            if io::stdout().is_terminal() {
                bail!("failed to print a profile: it is binary; direct it to a file with `> FILE`");
            }
            output::print(&export::pprof(report)?)
        }
        ReportFormat::Prometheus => {
            output::print(&metrics::prometheus(report, Exposition::Text, 0))
        }
    }
}
