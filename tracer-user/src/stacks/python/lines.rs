//! A code object's line table: from an instruction's offset to the line it was compiled from.

use super::layout::Version;

/// The line of the instruction at `offset_bytes`; `None` where the compiler gave it none.
pub(super) fn line_at(
    version: Version,
    table: &[u8],
    first_line: i32,
    offset_bytes: i64,
) -> Option<u32> {
    // Before its first instruction a frame stands on the line of `def`.
    let line = if offset_bytes < 0 {
        Some(first_line)
    } else if version.minor < 10 {
        Some(lnotab(table, first_line, offset_bytes))
    } else if version.minor == 10 {
        linetable(table, first_line, offset_bytes)
    } else {
        locations(table, first_line, offset_bytes)
    };
    line.and_then(|line| u32::try_from(line).ok())
}

/// Up to 3.9: pairs of (bytes of code, signed lines), Objects/lnotab_notes.txt.
fn lnotab(table: &[u8], first_line: i32, offset_bytes: i64) -> i32 {
    let mut line = first_line;
    let mut at = 0_i64;
    for pair in table.chunks_exact(2) {
        at += i64::from(pair[0]);
        if at > offset_bytes {
            break;
        }
        line = line.wrapping_add(i32::from(pair[1] as i8));
    }
    line
}

/// 3.10: pairs of (bytes of code, signed lines), -128 for code without a line (PEP 626).
fn linetable(table: &[u8], first_line: i32, offset_bytes: i64) -> Option<i32> {
    let mut line = first_line;
    let mut end = 0_i64;
    for pair in table.chunks_exact(2) {
        let delta = pair[1] as i8;
        if delta != i8::MIN {
            line = line.wrapping_add(i32::from(delta));
        }
        end += i64::from(pair[0]);
        if offset_bytes < end {
            return (delta != i8::MIN).then_some(line);
        }
    }
    None
}

const NO_LOCATION: u8 = 15;
const LONG: u8 = 14;
const NO_COLUMNS: u8 = 13;
const ONE_LINE: std::ops::RangeInclusive<u8> = 10..=12;
const CODE_UNIT_BYTES: i64 = 2;

/// From 3.11: entries that begin with a byte whose highest bit is set, Objects/locations.md.
fn locations(table: &[u8], first_line: i32, offset_bytes: i64) -> Option<i32> {
    let mut line = first_line;
    let mut end = 0_i64;
    let mut rest = table;
    while let Some((&first, mut after)) = rest.split_first() {
        let kind = (first >> 3) & 15;
        let delta = match kind {
            LONG | NO_COLUMNS => signed_varint(&mut after)?,
            kind if ONE_LINE.contains(&kind) => i32::from(kind - *ONE_LINE.start()),
            _ => 0,
        };
        line = line.wrapping_add(delta);
        end += (i64::from(first & 7) + 1) * CODE_UNIT_BYTES;
        if offset_bytes < end {
            return (kind != NO_LOCATION).then_some(line);
        }
        let next = after.iter().position(|byte| byte & 0x80 != 0);
        rest = &after[next.unwrap_or(after.len())..];
    }
    None
}

/// Six bits a byte, least significant first; 0x40 says that another follows.
fn signed_varint(bytes: &mut &[u8]) -> Option<i32> {
    let mut value = 0_u32;
    let mut shift = 0;
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u32::from(byte & 63).checked_shl(shift)?;
        shift += 6;
        if byte & 0x40 == 0 {
            break;
        }
    }
    let magnitude = (value >> 1) as i32;
    Some(if value & 1 == 1 {
        -magnitude
    } else {
        magnitude
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn version(minor: u16) -> Version {
        Version { minor }
    }

    // Tables of the same function, as each version compiled it:
    //   def f(a):        # line 10
    //       b = g(a)
    //       return h(b)
    // dis of 3.9: 11 -> 0, 12 -> 8.
    #[test]
    fn lnotab_of_3_9_gives_the_line_before_each_step() {
        let table = [0, 1, 8, 1];
        let line = |at| line_at(version(9), &table, 10, at);
        assert_eq!(line(-1), Some(10));
        assert_eq!(line(0), Some(11));
        assert_eq!(line(7), Some(11));
        assert_eq!(line(8), Some(12));
        assert_eq!(line(400), Some(12));
    }

    #[test]
    fn linetable_of_3_10_may_have_code_without_a_line() {
        let table = [8, 1, 4, 0x80, 6, 1];
        let line = |at| line_at(version(10), &table, 10, at);
        assert_eq!(line(6), Some(11));
        assert_eq!(line(8), None);
        assert_eq!(line(12), Some(12));
        assert_eq!(line(18), None);
    }

    #[test]
    fn locations_of_3_11_know_every_kind_of_entry() {
        let entry = |kind: u8, units: u8| 0x80 | (kind << 3) | (units - 1);
        let mut table = vec![entry(NO_LOCATION, 1)];
        table.extend([entry(11, 2), 4, 9]);
        table.extend([entry(3, 1), 0x15]);
        // +40 lines: 80 as six-bit groups.
        table.extend([entry(LONG, 8), 0x40 | 16, 1, 0, 4, 9]);
        // -2 lines.
        table.extend([entry(NO_COLUMNS, 1), 5]);
        let line = |at| line_at(version(12), &table, 10, at);
        assert_eq!(line(0), None);
        assert_eq!(line(2), Some(11));
        assert_eq!(line(4), Some(11));
        assert_eq!(line(6), Some(11));
        assert_eq!(line(8), Some(51));
        assert_eq!(line(22), Some(51));
        assert_eq!(line(24), Some(49));
        assert_eq!(line(26), None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_line_or_none(
            minor in 8_u16..15,
            table in prop::collection::vec(any::<u8>(), 0..256),
            first_line: i32,
            offset_bytes: i64,
        ) {
            let _ = line_at(version(minor), &table, first_line, offset_bytes);
        }
    }
}
