//! A `String` object, and the pair of them that stands for a file, read in bounds.

use super::super::elf::u64_at;
use super::super::memory::{Memory, object_at};
use super::layout::Layout;

/// Longer names and paths are cut: no person reads them.
const TEXT_MAX_BYTES: u64 = 1_024;
/// Of an object, `struct RString` and `struct RArray` up to where they differ by size.
pub(super) const HEADER_BYTES: usize = 40;

/// `enum ruby_value_type`, the low bits of an object's flags.
const TYPE_MASK: u64 = 0x1f;
const TYPE_STRING: u64 = 0x05;
const TYPE_ARRAY: u64 = 0x07;
/// `FL_USER1`: a string is not embedded, an array is.
const USER_1: u64 = 1 << 13;
/// `RSTRING_EMBED_LEN_SHIFT` of a string that has its length there.
const LENGTH_SHIFT: u32 = 14;

/// What makes a text this very text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TextHeader {
    /// Of its bytes.
    address: u64,
    length_bytes: u64,
    /// What is embedded begins with this.
    begins: [u8; 16],
}

impl TextHeader {
    /// `None` where there is no string at `object`.
    pub(super) fn parse(layout: &Layout, object: u64, header: &[u8]) -> Option<Self> {
        let flags = u64_at(header, 0);
        if flags & TYPE_MASK != TYPE_STRING {
            return None;
        }
        if flags & USER_1 != 0 {
            return Some(Self {
                address: u64_at(header, 24),
                length_bytes: u64_at(header, 16),
                begins: [0; 16],
            });
        }
        let (at, length_bytes) = match layout.has_length_in_flags() {
            true => (16, flags >> LENGTH_SHIFT & 0x1f),
            false => (24, u64_at(header, 16)),
        };
        Some(Self {
            address: object.checked_add(at as u64)?,
            length_bytes,
            begins: header.get(at..at + 16)?.try_into().ok()?,
        })
    }

    pub(super) fn read(&self, memory: Memory) -> Option<String> {
        let bytes = self.length_bytes.min(TEXT_MAX_BYTES) as usize;
        let text = memory.read(self.address, bytes)?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Where the strings of `pathobj` are, vm_core.h: it is the path itself, or has the path and the one
/// that the file system knows.
pub(super) fn paths(object: u64, header: &[u8]) -> [Option<u64>; 2] {
    let flags = u64_at(header, 0);
    match flags & TYPE_MASK {
        TYPE_STRING => [Some(object), None],
        TYPE_ARRAY if flags & USER_1 != 0 => [16, 24].map(|at| object_at(u64_at(header, at))),
        _ => [None, None],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::layout::Layout;
    use super::*;

    fn layout(minor: u32) -> Layout {
        let version = [3, minor, 0].map(u32::to_le_bytes).concat();
        Layout::of(&version, "libruby.so").expect("it is known")
    }

    fn read(minor: u32, words: &[u64]) -> Option<String> {
        let header: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let object = words.as_ptr() as u64;
        let memory = Memory::of(std::process::id());
        TextHeader::parse(&layout(minor), object, &header)?.read(memory)
    }

    #[test]
    fn each_kind_of_text_is_read() {
        let main = u64::from_le_bytes(*b"main\0\0\0\0");
        let embedded = [TYPE_STRING | 4 << LENGTH_SHIFT, 0, main, 0, 0];
        assert_eq!(read(1, &embedded).as_deref(), Some("main"));
        let sized = [TYPE_STRING, 0, 4, main, 0];
        assert_eq!(read(3, &sized).as_deref(), Some("main"));
        let path = "/srv/orders.rb";
        let apart = [TYPE_STRING | USER_1, 0, 14, path.as_ptr() as u64, 0];
        for minor in [1, 3] {
            assert_eq!(read(minor, &apart).as_deref(), Some(path));
        }
        assert_eq!(read(1, &[TYPE_ARRAY, 0, main, 0, 0]), None);
        assert_eq!(read(1, &[TYPE_STRING | USER_1, 0, 14, 8, 0]), None);
        assert_eq!(read(1, &[TYPE_STRING | USER_1, 0, u64::MAX, 8, 0]), None);
    }

    proptest! {
        #[test]
        fn any_object_has_an_answer(minor in 0_u32..5, words: [u64; 5]) {
            let _ = read(minor, &words);
            let header: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let _ = paths(words[0], &header);
        }
    }
}
