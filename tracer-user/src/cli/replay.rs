//! `connleak replay`: the report of a recorded trace.

use std::process::ExitCode;

use anyhow::{Context, Result};

use super::{
    FAILED,
    args::{Format, ReplayArgs},
    daemon::judging,
    output,
};
use crate::{
    pipeline,
    report::{self, clean},
};

pub(super) fn run(args: &ReplayArgs) -> Result<ExitCode> {
    let judging = judging(&args.judging)?;
    let rules = &judging.sites;
    let failed = || format!("failed to read recording {}", args.recording.display());
    let replayed = pipeline::replay(&args.recording, &judging).with_context(failed)?;
    output::print(&match args.output {
        Format::Json => report::json(&replayed.report)?,
        Format::Table => report::table(&replayed.report, rules, output::style(args.sockets)),
    })?;
    let Some(cut) = replayed.cut else {
        return Ok(ExitCode::SUCCESS);
    };
    let message = format!("{}: {cut}; the report says what stands before it", failed());
    output::complain(&clean(&message));
    Ok(ExitCode::from(FAILED))
}
