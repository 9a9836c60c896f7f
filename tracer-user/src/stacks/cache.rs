//! Names already looked up, bounded in bytes: (file, address) to the frames there.

use std::collections::HashMap;
use std::mem;
use std::rc::Rc;

use super::symbolize::NamedFrame;

/// Which file (by the number the resolver gave it) and which address in it.
pub(super) type NameKey = (u64, u64);

const ENTRY_OVERHEAD_BYTES: usize = 96;

/// Two generations: what the old one still holds is taken over when it is used, the rest goes as
/// a whole. Bounded like an LRU list, without links to keep.
#[derive(Debug)]
pub(super) struct NameCache {
    young: HashMap<NameKey, Rc<[NamedFrame]>>,
    old: HashMap<NameKey, Rc<[NamedFrame]>>,
    young_bytes: usize,
    old_bytes: usize,
    bound_bytes: usize,
}

impl NameCache {
    pub(super) fn new(bound_bytes: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            young_bytes: 0,
            old_bytes: 0,
            bound_bytes,
        }
    }

    pub(super) fn get(&mut self, key: NameKey) -> Option<Rc<[NamedFrame]>> {
        if let Some(frames) = self.young.get(&key) {
            return Some(Rc::clone(frames));
        }
        let frames = self.old.remove(&key)?;
        self.old_bytes = self.old_bytes.saturating_sub(cost_bytes(&frames));
        self.insert(key, Rc::clone(&frames));
        Some(frames)
    }

    pub(super) fn insert(&mut self, key: NameKey, frames: Rc<[NamedFrame]>) {
        self.young_bytes += cost_bytes(&frames);
        self.young.insert(key, frames);
        if self.young_bytes > self.bound_bytes / 2 {
            self.old = mem::take(&mut self.young);
            self.old_bytes = mem::take(&mut self.young_bytes);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.young_bytes + self.old_bytes
    }
}

fn cost_bytes(frames: &[NamedFrame]) -> usize {
    let text = |text: &Option<Rc<str>>| text.as_ref().map_or(0, |text| text.len() + 16);
    let names: usize = frames
        .iter()
        .map(|frame| mem::size_of::<NamedFrame>() + text(&frame.function) + text(&frame.file))
        .sum();
    ENTRY_OVERHEAD_BYTES + names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(length: usize) -> Rc<[NamedFrame]> {
        Rc::from(vec![NamedFrame {
            function: Some("f".repeat(length).into()),
            ..NamedFrame::default()
        }])
    }

    #[test]
    fn what_is_used_survives_and_the_bound_holds() {
        let mut cache = NameCache::new(20_000);
        cache.insert((0, 0), frames(10));
        for address in 1..10_000 {
            cache.insert((1, address), frames(50));
            assert!(cache.get((0, 0)).is_some());
            assert!(cache.bytes() <= 20_000 + 1_000);
        }
        assert!(cache.get((1, 1)).is_none());
    }
}
