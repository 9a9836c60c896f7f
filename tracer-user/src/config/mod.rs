//! The configuration is one TOML file; what it leaves out is as in [`DEFAULT`].

mod check;
mod duration;
mod error;
mod export;
mod model;
mod port;
mod problem;
mod redis;
mod rung;
mod site;
mod size;
pub mod template;
mod unit_name;

use std::fs;
use std::path::Path;

pub use duration::parse as parse_duration;
pub use error::{ConfigError, Fault};
pub use export::{Export, Otlp, Prometheus, Stream};
pub use model::*;
pub use redis::{Probe, ProbeList, Redis};
pub use rung::Rung;
pub use site::{SiteRule, Subject};
pub use size::parse as parse_size;
pub use unit_name::check_unit_name;

/// The fully commented example, installed as the configuration: every key at its default.
pub const DEFAULT: &str = include_str!("default.toml");

impl Config {
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(file).map_err(|source| ConfigError::Read {
            file: file.to_owned(),
            source,
        })?;
        Self::parse(&text, file)
    }

    /// `file` is named in errors only.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let fault = |line, message| Fault {
            file: file.to_owned(),
            line,
            message,
        };
        let config: Self = toml::from_str(text).map_err(|broken| {
            let line = broken
                .span()
                .map_or(0, |span| error::line_of(text, span.start));
            ConfigError::Faults {
                faults: vec![fault(line, error::reword(broken.message()))],
            }
        })?;
        let problems = check::check(&config);
        if problems.is_empty() {
            return Ok(config);
        }
        let mut faults: Vec<Fault> = problems
            .into_iter()
            .map(|problem| fault(error::locate(text, &problem), problem.message))
            .collect();
        faults.sort_by_key(|fault| fault.line);
        Err(ConfigError::Faults { faults })
    }
}

#[cfg(test)]
mod tests;
