//! `connleak check`: is all well, one line each, and an exit code for monitoring.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::{
    args::{CheckArgs, Format},
    daemon::config_file,
    output,
};
use crate::config::Config;
use crate::daemon::check::{check, worst};
use crate::report::clean;

pub(super) async fn run(args: CheckArgs) -> Result<ExitCode> {
    let config = match config_file(args.config) {
        Some(file) => Config::read(&file)?,
        None => Config::default(),
    };
    let findings = check(&config).await;
    let grade = worst(&findings);
    let text = match args.output {
        Format::Json => {
            let object = json!({
                "schema": "connleak.check/1",
                "grade": grade,
                "findings": findings,
            });
            format!("{object:#}\n")
        }
        Format::Table => findings.iter().fold(String::new(), |mut text, it| {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{:<9} {}: {}",
                it.grade.name(),
                clean(&it.name),
                clean(&it.figure)
            );
            text
        }),
    };
    output::print(&text)?;
    Ok(ExitCode::from(grade.exit_code()))
}
