//! `connleak snapshot`: every watched socket with its holders, at once.

use std::process::ExitCode;

use anyhow::Result;

use super::{args::SnapshotArgs, render};
use crate::{memory, pipeline, stacks::SiteRules};

pub(super) fn run(args: SnapshotArgs) -> Result<ExitCode> {
    memory::live_shortly();
    let snapshot = pipeline::snapshot(&args.ports.ports, args.btf.btf)?;
    let rules = SiteRules::default();
    render::print(&snapshot.report, &rules, args.output, true)?;
    // The process ends here: taking 100,000 sockets apart piece by piece would only delay that.
    std::mem::forget(snapshot);
    Ok(ExitCode::SUCCESS)
}
