//! The values that a function has for each of its instructions: file, line, inlined call.

use super::GoTable;

/// A function's table of lines has a pair for each change.
const PAIRS_MAX: usize = 1 << 20;

impl GoTable {
    /// The value that a table of (value, code bytes) steps has at `address`.
    pub(super) fn value_at(&self, table: u32, entry: u64, address: u64) -> Option<i32> {
        let mut at = self.values.checked_add(table as usize)?;
        let mut value = -1_i32;
        let mut end = entry;
        for pair in 0..PAIRS_MAX {
            let step = self.varint(&mut at)?;
            if step == 0 && pair > 0 {
                return None;
            }
            let step = match step & 1 {
                0 => (step >> 1) as i32,
                _ => !((step >> 1) as i32),
            };
            value = value.wrapping_add(step);
            end = end.checked_add(u64::from(self.varint(&mut at)?))?;
            if address < end {
                return Some(value);
            }
        }
        None
    }

    fn varint(&self, at: &mut usize) -> Option<u32> {
        let mut value = 0_u32;
        for shift in (0..32).step_by(7) {
            let byte = *self.bytes.get(*at)?;
            *at += 1;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}
