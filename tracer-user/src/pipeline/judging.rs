//! What a trace is judged by: where its sites are, from when on something has a name, and what
//! finding that out may take.

use crate::{
    config::{Config, Verdicts, Watch},
    stacks::{ResolverConfig, SiteRules},
};

#[derive(Clone, Debug)]
pub struct Judging {
    pub sites: SiteRules,
    pub verdicts: Verdicts,
    /// The levels of ports.
    pub watches: Vec<Watch>,
    /// Taken over when tracing starts.
    pub naming: ResolverConfig,
}

impl From<&Config> for Judging {
    fn from(config: &Config) -> Self {
        Self {
            sites: SiteRules::new(config.site.clone()),
            verdicts: config.verdict,
            watches: config.watch.0.clone(),
            naming: ResolverConfig::with_names_bytes(config.limits.symbol_cache_bytes),
        }
    }
}

impl Default for Judging {
    fn default() -> Self {
        Self::from(&Config::default())
    }
}
