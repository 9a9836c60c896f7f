//! `connleak daemon`: the policy, kept running.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

use super::{
    args::{DaemonArgs, JudgingArgs},
    output,
};
use crate::config::Config;
use crate::daemon::{self, DaemonOptions};
use crate::pipeline::Judging;

/// Where the package installs it.
const CONFIG: &str = "/etc/connleak/connleak.toml";

pub(super) async fn run(args: DaemonArgs) -> Result<ExitCode> {
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
