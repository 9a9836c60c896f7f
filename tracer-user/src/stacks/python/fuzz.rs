//! CPython's memory and files as a fuzzer writes them.

use super::layout::{Layout, Version};
use super::lines::line_at;
use super::symbols::search;
use super::text;

/// A line table of any version, and where in it to look.
pub fn line_table(bytes: &[u8]) {
    let Some((head, table)) = bytes.split_at_checked(8) else {
        return;
    };
    let version = Version {
        minor: 8 + u16::from(head[0] % 8),
    };
    let first_line = i32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    let offset_bytes = i64::from(i16::from_le_bytes([head[5], head[6]]));
    line_at(version, table, first_line, offset_bytes);
}

/// What `_PyRuntime` begins with.
pub fn runtime(bytes: &[u8]) {
    let Some((minor, head)) = bytes.split_first() else {
        return;
    };
    let minor = u16::from(minor % 20);
    let _ = Layout::of(Version { minor }, head);
}

/// The symbol table of an interpreter, and the names after it.
pub fn symbols(bytes: &[u8]) {
    let Some((length, tables)) = bytes.split_first() else {
        return;
    };
    let at = usize::from(*length).saturating_mul(24).min(tables.len());
    let (table, names) = tables.split_at(at);
    search(table, names);
}

/// A `str` object and its characters.
pub fn text(bytes: &[u8]) {
    let Some((kind, characters)) = bytes.split_first() else {
        return;
    };
    text::decode(characters, u32::from(kind % 5));
    text::TextHeader::parse(characters);
}
