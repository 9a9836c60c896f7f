//! `connleak snapshot`: every watched socket with its holders, at once.

use std::process::ExitCode;

use anyhow::Result;

use super::{
    args::{Format, SnapshotArgs},
    output,
};
use crate::{pipeline, report, stacks::SiteRules};

pub(super) fn run(args: SnapshotArgs) -> Result<ExitCode> {
    let report = pipeline::snapshot(&args.ports.ports, args.btf.btf)?;
    output::print(&match args.output {
        Format::Json => report::json(&report)?,
        Format::Table => report::table(&report, &SiteRules::default(), output::style(true)),
    })?;
    Ok(ExitCode::SUCCESS)
}
