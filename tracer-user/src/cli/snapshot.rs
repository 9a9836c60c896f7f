//! `connleak snapshot`: every watched socket with its holders, at once.

use std::process::ExitCode;

use anyhow::Result;

use super::{args::SnapshotArgs, output, render::render};
use crate::{pipeline, stacks::SiteRules};

pub(super) fn run(args: SnapshotArgs) -> Result<ExitCode> {
    let report = pipeline::snapshot(&args.ports.ports, args.btf.btf)?;
    let rules = SiteRules::default();
    output::print(&render(&report, &rules, args.output, true)?)?;
    Ok(ExitCode::SUCCESS)
}
