//! `connleak doctor`: can tracing run here, and what to do where it cannot.

mod checks;
mod page;

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::{
    args::{DoctorArgs, Format},
    output,
};
use crate::kernel::ProgramCost;

/// How a check came out; the worst of all is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Ok,
    /// Worth knowing; tracing does not depend on it.
    Note,
    Degraded,
    Failed,
}

/// One line of the doctor's page.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Check {
    name: String,
    outcome: Outcome,
    found: String,
    /// What to do; present wherever the outcome is not `ok`.
    remedy: Option<String>,
}

/// The doctor's answer; `schema` is `connleak.doctor/1`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Diagnosis {
    schema: &'static str,
    version: &'static str,
    kernel: String,
    outcome: Outcome,
    checks: Vec<Check>,
    /// What verifying each program took, so that growth is seen.
    programs: Vec<ProgramCost>,
}

pub(super) async fn run(args: DoctorArgs) -> Result<ExitCode> {
    let diagnosis = checks::diagnose(&args).await;
    output::print(&match args.output {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&diagnosis)?),
        Format::Table => page::page(&diagnosis, output::style(false).color),
    })?;
    Ok(ExitCode::from(match diagnosis.outcome {
        Outcome::Ok | Outcome::Note => 0,
        Outcome::Degraded => 1,
        Outcome::Failed => 2,
    }))
}
