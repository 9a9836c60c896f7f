//! What a daemon was asked for on its command line, and what its configuration makes of that.

use std::path::PathBuf;

use anyhow::Result;

use crate::config::Config;
use crate::kernel::{Family, Options};

#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// Read anew on SIGHUP; None for the built-in defaults.
    pub config_file: Option<PathBuf>,
    pub dry_run: bool,
    pub family: Option<Family>,
    pub btf: Option<PathBuf>,
}

impl DaemonOptions {
    /// # Errors
    ///
    /// The file cannot be read, or says something wrong.
    pub fn config(&self) -> Result<Config> {
        let mut config = match &self.config_file {
            Some(file) => Config::read(file)?,
            None => Config::default(),
        };
        config.policy.dry_run |= self.dry_run;
        Ok(config)
    }

    pub(super) fn tracing(&self, config: &Config) -> Options {
        let u32_of = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        Options {
            ports: config.watch.0.iter().map(|watch| watch.port).collect(),
            family: self.family,
            btf: self.btf.clone(),
            stack_bytes: u32_of(config.limits.stack_bytes),
            max_sockets: config.limits.max_sockets,
            ring_bytes: u32_of(config.limits.ring_bytes),
            stacks_per_second: config.limits.stacks_per_second,
            follow_children: false,
        }
    }
}
