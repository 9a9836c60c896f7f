//! Code already read: what names a code object, by process and address, bounded in bytes.

use std::collections::HashMap;
use std::sync::Arc;

const MAX_BYTES: usize = 16 << 20;

/// Runtime, PID and address of a code object.
pub(super) type CodeKey = (u32, u32, u64);

pub(super) trait Held {
    fn held_bytes(&self) -> usize;
}

/// Full, it begins anew: what runs is read again at once.
pub(super) struct KnownCode<Text> {
    texts: HashMap<CodeKey, Arc<Text>>,
    bytes: usize,
}

impl<Text> Default for KnownCode<Text> {
    fn default() -> Self {
        Self {
            texts: HashMap::new(),
            bytes: 0,
        }
    }
}

impl<Text: Held> KnownCode<Text> {
    pub(super) fn get(&self, key: CodeKey) -> Option<&Arc<Text>> {
        self.texts.get(&key)
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn insert(&mut self, key: CodeKey, text: Arc<Text>) {
        let bytes = entry_bytes(&*text);
        if self.bytes + bytes > MAX_BYTES {
            *self = Self::default();
        }
        self.bytes += bytes;
        if let Some(old) = self.texts.insert(key, text) {
            self.bytes -= entry_bytes(&*old);
        }
    }
}

fn entry_bytes(text: &impl Held) -> usize {
    const ENTRY_OVERHEAD_BYTES: usize = 64;
    ENTRY_OVERHEAD_BYTES + text.held_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Held for Vec<u8> {
        fn held_bytes(&self) -> usize {
            self.len()
        }
    }

    #[test]
    fn code_of_a_process_that_makes_ever_more_of_it_stays_within_the_bound() {
        let text = |bytes| Arc::new(vec![0_u8; bytes]);
        let mut known = KnownCode::default();
        for code in 0..1_000 {
            // The same address again, as after a free, and another.
            known.insert((1, 1, 0), text(256 << 10));
            known.insert((1, 1, code), text(1_000));
            let held: usize = known.texts.values().map(|text| entry_bytes(&**text)).sum();
            assert_eq!(held, known.bytes);
            assert!(known.bytes <= MAX_BYTES);
            assert!(known.texts.contains_key(&(1, 1, code)));
        }
    }
}
