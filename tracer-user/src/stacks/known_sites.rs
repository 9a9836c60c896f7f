//! Known sites: of a stack that many sockets share, the site is looked for once.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use super::{Site, SiteRules, Stack};

/// Stacks whose sites are kept; with more, all are looked for anew.
const KNOWN_MAX: usize = 4096;

/// The sites of stacks by the place of the stack in memory, all by the same rules.
#[derive(Debug, Default)]
pub struct KnownSites {
    /// The handle keeps the place from being another stack's, and no names in memory.
    sites: HashMap<usize, (Weak<Stack>, Option<Arc<Site>>)>,
}

impl KnownSites {
    /// The site of `stack` by `rules`, which must be those of every call before.
    pub fn site(&mut self, rules: &SiteRules, stack: &Arc<Stack>) -> Option<Arc<Site>> {
        let place = Arc::as_ptr(stack).addr();
        if let Some((_, site)) = self.sites.get(&place) {
            return site.clone();
        }
        if self.sites.len() >= KNOWN_MAX {
            self.sites.clear();
        }
        let site = rules.site(&stack.frames).map(Arc::new);
        let known = (Arc::downgrade(stack), site.clone());
        self.sites.insert(place, known);
        site
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Frame, FrameKind};
    use super::*;

    fn stack(function: &str) -> Arc<Stack> {
        let frame = Frame {
            function: Some(function.to_owned()),
            file: None,
            line: None,
            module: Some("/srv/orders/server".to_owned()),
            kind: FrameKind::Native,
            inlined: false,
        };
        Arc::new(Stack {
            frames: vec![frame],
            note: None,
        })
    }

    fn function(site: Option<Arc<Site>>) -> Option<String> {
        site.and_then(|site| site.function.clone())
    }

    #[test]
    fn a_stack_in_the_place_of_one_that_is_gone_has_its_own_site() {
        let (mut known, rules) = (KnownSites::default(), SiteRules::default());
        for number in 0..2 * KNOWN_MAX {
            let name = format!("get_client_{number}");
            let stack = stack(&name);
            let expected = Some(name);
            assert_eq!(function(known.site(&rules, &stack)), expected);
            assert_eq!(function(known.site(&rules, &stack)), expected);
            assert!(known.sites.len() <= KNOWN_MAX);
        }
    }
}
