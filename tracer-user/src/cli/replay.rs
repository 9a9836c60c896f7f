//! `connleak replay`: the report of a recorded trace.

use std::process::ExitCode;

use anyhow::Result;

use super::{FAILED, args::ReplayArgs, daemon::judging, output, render, report::recorded};
use crate::report::clean;

pub(super) fn run(args: &ReplayArgs) -> Result<ExitCode> {
    let judging = judging(&args.judging)?;
    let (report, cut) = recorded(&args.recording, &judging)?;
    render::print(
        &report,
        &judging.sites,
        args.printed.output,
        args.printed.sockets,
    )?;
    let Some(cut) = cut else {
        return Ok(ExitCode::SUCCESS);
    };
    output::complain(&clean(&cut));
    Ok(ExitCode::from(FAILED))
}
