//! What of a report is shown, and in which format.

use clap::{Args as ClapArgs, ValueEnum};

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct PickedArgs {
    /// Show only this process; can be given several times
    #[arg(long = "pid", value_name = "PID")]
    pub(in crate::cli) pids: Vec<u32>,
    /// Show only the processes of this systemd unit; can be given several times
    #[arg(long = "unit", value_name = "NAME")]
    pub(in crate::cli) units: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct PrintedArgs {
    #[arg(short, long, value_enum, default_value_t = ReportFormat::Table)]
    pub(in crate::cli) output: ReportFormat,
    /// List every socket below its opener
    #[arg(long)]
    pub(in crate::cli) sockets: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    Table,
    Json,
}

/// The formats of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ReportFormat {
    /// For people
    Table,
    /// One object
    Json,
    /// One object a line: the report's head, then each opener and server
    Ndjson,
    /// One row for each opener and site
    Csv,
    /// One page that needs nothing but itself
    Html,
    /// Folded stacks, for flame graph tools and speedscope
    Folded,
    /// An interactive flame graph, SVG
    Flamegraph,
    /// A gzipped profile, for `go tool pprof`
    Pprof,
    /// Metrics, for the text-file collector
    Prometheus,
}
