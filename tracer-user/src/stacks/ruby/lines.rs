//! The lines of an instruction sequence: a succinct bit vector says which line each position is on.

use super::super::elf::{u32_at, u64_at};

/// `struct succ_index_table`, iseq.c: the counts of the first positions, nine of seven bits a word,
/// then a block for each 512 positions.
const HEAD_POSITIONS: u64 = 54;
const HEAD_BYTES: u64 = 48;
const BLOCK_POSITIONS: u64 = 512;
const BLOCK_BYTES: u64 = 80;
/// In a block: the count before it, the counts before each word in it but the first, of nine bits
/// each, and the words.
const BLOCK_COUNTS: u64 = 8;
const BLOCK_WORDS: u64 = 16;

/// Both tables as they were read; either is empty where it could not be.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) index: Vec<u8>,
    pub(super) entries: Vec<u8>,
    pub(super) entry_bytes: usize,
}

/// Of the index over so many positions.
pub(super) fn index_bytes(positions: u32) -> u64 {
    let positions = u64::from(positions);
    match positions.checked_sub(HEAD_POSITIONS) {
        // Of the head, too, there is no more than is needed.
        None => positions.div_ceil(9) * 8,
        Some(beyond) => HEAD_BYTES + beyond.div_ceil(BLOCK_POSITIONS) * BLOCK_BYTES,
    }
}

impl Lines {
    /// The line of the instruction at `position`, counted in words.
    pub(super) fn line_at(&self, position: u64) -> Option<u32> {
        let entries = self.entries.len() / self.entry_bytes.max(1);
        let entry = match entries {
            0 => return None,
            // There is no index for one.
            1 => 0,
            _ => self.count_to(position)?.checked_sub(1)?,
        };
        let at = usize::try_from(entry).ok()?.checked_mul(self.entry_bytes)?;
        let line = u32_at(self.entries.get(at..at + 4)?, 0);
        (line > 0 && line <= i32::MAX as u32).then_some(line)
    }

    /// How many entries begin at `position` or before.
    fn count_to(&self, position: u64) -> Option<u64> {
        let Some(beyond) = position.checked_sub(HEAD_POSITIONS) else {
            let word = self.word(position / 9 * 8)?;
            return Some(word >> (position % 9 * 7) & 0x7f);
        };
        let block = HEAD_BYTES.checked_add((beyond / BLOCK_POSITIONS).checked_mul(BLOCK_BYTES)?)?;
        let (word, bit) = (beyond % BLOCK_POSITIONS / 64, beyond % 64);
        let before_block = self.word(block)? & u64::from(u32::MAX);
        let before_word = match word {
            0 => 0,
            word => self.word(block + BLOCK_COUNTS)? >> ((word - 1) * 9) & 0x1ff,
        };
        let bits = self.word(block + BLOCK_WORDS + word * 8)?;
        let within = (bits << (63 - bit)).count_ones();
        Some(before_block + before_word + u64::from(within))
    }

    fn word(&self, at: u64) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        Some(u64_at(self.index.get(at..at.checked_add(8)?)?, 0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The tables for entries that begin at these positions, each on a line of its own.
    fn lines(starts: &[u32], positions: u32) -> Lines {
        let count_to = |position: u32| starts.iter().filter(|start| **start <= position).count();
        let mut index = vec![0_u8; index_bytes(positions) as usize];
        let mut add = |at: usize, bits: u64| {
            let word = u64_at(&index, at) | bits;
            index[at..at + 8].copy_from_slice(&word.to_le_bytes());
        };
        for position in 0..54_u32.min(positions) {
            let (word, shift) = (position / 9, position % 9 * 7);
            add(word as usize * 8, (count_to(position) as u64) << shift);
        }
        for first in (54..positions).step_by(512) {
            let block = 48 + (first as usize - 54) / 512 * 80;
            let before = count_to(first - 1) as u64;
            add(block, before);
            for word in 0..8_u32 {
                let begin = first + word * 64;
                if word > 0 {
                    let counted = count_to(begin - 1) as u64 - before;
                    add(block + 8, counted << ((word - 1) * 9));
                }
                for start in starts.iter().filter(|at| (begin..begin + 64).contains(at)) {
                    let bit = 1 << (start - begin);
                    add(block + 16 + word as usize * 8, bit);
                }
            }
        }
        let entries = (0..starts.len() as u32).flat_map(|entry| {
            [(entry + 1) * 10, 0, 0]
                .map(u32::to_le_bytes)
                .into_iter()
                .flatten()
        });
        Lines {
            index,
            entries: entries.collect(),
            entry_bytes: 12,
        }
    }

    proptest! {
        #[test]
        fn each_position_is_on_the_line_of_the_last_entry_before_it(
            positions in prop_oneof![2_u32..80, 80_u32..3_000],
            starts in prop::collection::btree_set(1_u32..3_000, 1..120),
        ) {
            let starts = starts.into_iter().map(|start| start % positions);
            let mut starts: Vec<u32> = [0, 1].into_iter().chain(starts).collect();
            starts.sort_unstable();
            starts.dedup();
            let lines = lines(&starts, positions);
            for position in 0..positions {
                let entry = starts.iter().filter(|start| **start <= position).count() as u32;
                prop_assert_eq!(lines.line_at(position.into()), Some(entry * 10));
            }
        }

        #[test]
        fn any_tables_have_an_answer(
            index in prop::collection::vec(any::<u8>(), 0..300),
            entries in prop::collection::vec(any::<u8>(), 0..300),
            entry_bytes in 0_usize..16,
            position: u64,
        ) {
            let _ = Lines { index, entries, entry_bytes }.line_at(position);
        }
    }

    #[test]
    fn one_entry_needs_no_index() {
        let lines = Lines {
            index: Vec::new(),
            entries: [7_u32, 0, 0].map(u32::to_le_bytes).concat(),
            entry_bytes: 12,
        };
        assert_eq!(lines.line_at(90), Some(7));
    }
}
