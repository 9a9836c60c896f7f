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

/// `sockets`: one line a socket in the table.
pub(super) fn render(
    report: &Report,
    rules: &SiteRules,
    format: ReportFormat,
    sockets: bool,
) -> Result<Vec<u8>> {
    Ok(match format {
        ReportFormat::Table => report::table(report, rules, output::style(sockets)).into_bytes(),
        ReportFormat::Json => report::json(report)?.into_bytes(),
        ReportFormat::Ndjson => export::ndjson(report)?.into_bytes(),
        ReportFormat::Csv => export::csv(report)?.into_bytes(),
        ReportFormat::Html => export::html(report)?.into_bytes(),
        ReportFormat::Folded => export::folded(report).into_bytes(),
        ReportFormat::Flamegraph => export::flamegraph(report)?,
        ReportFormat::Pprof => {
            if io::stdout().is_terminal() {
                bail!("failed to print a profile: it is binary; direct it to a file with `> FILE`");
            }
            export::pprof(report)?
        }
        ReportFormat::Prometheus => metrics::prometheus(report, Exposition::Text, 0).into_bytes(),
    })
}
