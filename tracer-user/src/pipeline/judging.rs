//! What a trace is judged by: where its sites are, and from when on something has a name.

use crate::{
    config::{Config, Verdicts, Watch},
    stacks::SiteRules,
};

#[derive(Clone, Debug)]
pub struct Judging {
    pub sites: SiteRules,
    pub verdicts: Verdicts,
    /// The levels of ports.
    pub watches: Vec<Watch>,
}

impl From<&Config> for Judging {
    fn from(config: &Config) -> Self {
        Self {
            sites: SiteRules::default(),
            verdicts: config.verdict,
            watches: config.watch.0.clone(),
        }
    }
}

impl Default for Judging {
    fn default() -> Self {
        Self::from(&Config::default())
    }
}
