//! `connleak daemon`: the policy, kept running.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

use super::{
    args::{DaemonArgs, JudgingArgs},
    failed, output,
};
use crate::config::{Config, ConfigError};
use crate::daemon::{self, DaemonOptions};
use crate::pipeline::Judging;

/// Where the package installs it.
const CONFIG: &str = "/etc/connleak/connleak.toml";

/// Exit code of a daemon whose configuration is wrong: sysexits.h, EX_CONFIG. Its unit is not
/// started again then, as it is after all else, which may pass.
const BAD_CONFIG: u8 = 78;

pub(super) async fn run(args: DaemonArgs) -> Result<ExitCode> {
    match run_or_check(args).await {
        Err(error) if is_bad_config(&error) => Ok(failed(&error, BAD_CONFIG)),
        ended => ended,
    }
}

fn is_bad_config(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<ConfigError>();
    error.is_some_and(ConfigError::is_of_content)
}

async fn run_or_check(args: DaemonArgs) -> Result<ExitCode> {
    let options = DaemonOptions {
        config_file: config_file(args.config),
        dry_run: args.dry_run,
        family: args.hooks.probes.forced(),
        btf: args.hooks.btf.btf,
    };
    if args.check_config {
        options.config()?;
        let what = match &options.config_file {
            Some(file) => file.display().to_string(),
            None => "the built-in configuration".to_owned(),
        };
        output::print(&format!("{what} is good\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    // Spawned: each wake of the runtime's main task costs an eventfd's write and another poll,
    // several a second in a daemon that should cost nothing.
    tokio::spawn(daemon::run(options)).await??;
    Ok(ExitCode::SUCCESS)
}

/// What the configuration says of verdicts and levels.
pub(super) fn judging(args: &JudgingArgs) -> Result<Judging> {
    let config = match config_file(args.config.clone()) {
        Some(file) => Config::read(&file)?,
        None => Config::default(),
    };
    Ok(Judging::from(&config))
}

/// The one that was named, or the installed one, or none.
pub(super) fn config_file(named: Option<PathBuf>) -> Option<PathBuf> {
    named.or_else(|| {
        let installed = Path::new(CONFIG);
        installed.exists().then(|| installed.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_not_started_again_with_a_bad_configuration() {
        let unit = include_str!("../../dist/connleak.service");
        let line = format!("RestartPreventExitStatus={BAD_CONFIG}");
        assert!(unit.lines().any(|it| it == line), "no {line}");
    }

    #[test]
    fn what_a_file_says_is_a_bad_configuration_and_no_file_is_none() {
        let is_bad = |config: Result<Config, ConfigError>| {
            is_bad_config(&config.expect_err("no configuration").into())
        };
        let file = Path::new("/nonexistent/connleak.toml");
        assert!(is_bad(Config::parse("[watch", file)));
        assert!(is_bad(Config::parse("[[watch]]\nport = 0\n", file)));
        assert!(!is_bad(Config::read(file)));
    }
}
