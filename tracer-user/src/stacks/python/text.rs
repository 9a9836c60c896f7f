//! A `str` object, read in bounds.

use super::super::elf::{u32_at, u64_at};
use super::super::memory::Memory;
use super::Runtime;

/// Longer names and paths are cut: no person reads them.
const CHARACTERS_MAX: usize = 1_024;
/// Up to `state`, the same since 3.3.
pub(super) const HEADER_BYTES: usize = 40;

/// What makes a text this very text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TextHeader {
    type_address: u64,
    characters: u64,
    hash: u64,
    state: u32,
}

impl TextHeader {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        Self {
            type_address: u64_at(bytes, 8),
            characters: u64_at(bytes, 16),
            hash: u64_at(bytes, 24),
            // Interned or not, and how for good: it may change, the text does not.
            state: u32_at(bytes, 32) & !3,
        }
    }

    /// Reads the characters of the text at `address`, whose header this is.
    pub(super) fn read(&self, memory: Memory, address: u64, runtime: &Runtime) -> Option<String> {
        if self.type_address != runtime.text_type {
            return None;
        }
        let (kind, compact, ascii) = (
            (self.state >> 2) & 7,
            (self.state >> 5) & 1 == 1,
            (self.state >> 6) & 1 == 1,
        );
        if !compact || !matches!(kind, 1 | 2 | 4) {
            return None;
        }
        // 3.12 dropped `wstr`, and `wstr_length`.
        let data = match (runtime.version.minor >= 12, ascii) {
            (true, true) => 40,
            (true, false) => 56,
            (false, true) => 48,
            (false, false) => 72,
        };
        let characters = usize::try_from(self.characters).ok()?.min(CHARACTERS_MAX);
        let bytes = memory.read(address.checked_add(data)?, characters * kind as usize)?;
        Some(decode(&bytes, kind))
    }
}

pub(super) fn decode(bytes: &[u8], kind: u32) -> String {
    let character = |value: u32| char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER);
    match kind {
        1 => bytes.iter().map(|byte| char::from(*byte)).collect(),
        2 => bytes
            .chunks_exact(2)
            .map(|unit| character(u32::from(u16::from_le_bytes([unit[0], unit[1]]))))
            .collect(),
        _ => bytes
            .chunks_exact(4)
            .map(|unit| character(u32_at(unit, 0)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_kind_of_text_is_read() {
        assert_eq!(decode(b"caf\xe9", 1), "café");
        assert_eq!(decode(&[0x3b, 0x4, 0x0, 0xd8], 2), "л\u{fffd}");
        assert_eq!(decode(&[0x80, 0xf6, 1, 0], 4), "\u{1f680}");
    }

    proptest! {
        #[test]
        fn any_bytes_decode(kind in 1_u32..5, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes, kind);
            let _ = TextHeader::parse(&bytes);
        }
    }
}
