//! `connleak doctor`: can tracing run here, and what to do where it cannot.
use std::process::ExitCode;

use anyhow::Result;

use super::args::DoctorArgs;

pub(super) async fn run(_args: DoctorArgs) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
