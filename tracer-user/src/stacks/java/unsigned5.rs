//! HotSpot's compressed integers: `UNSIGNED5`, code/compressedStream.cpp, utilities/unsigned5.hpp.

/// A byte below this ends its integer.
const HIGH_CODES: u32 = 64;
const MAX_BYTES: u32 = 5;
const BITS_A_BYTE: u32 = 6;

/// Reads integers one after the other. What ends within an integer has none.
#[derive(Clone, Debug)]
pub(super) struct Unsigned5<'bytes> {
    bytes: &'bytes [u8],
    /// Byte values that no integer has: 1 from JDK 20 on, where zero ends a stream.
    excluded: u8,
}

impl<'bytes> Unsigned5<'bytes> {
    pub(super) fn new(bytes: &'bytes [u8], excluded: u8) -> Self {
        Self { bytes, excluded }
    }

    pub(super) fn rest_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*byte)
    }

    pub(super) fn unsigned(&mut self) -> Option<u32> {
        let mut value = 0_u32;
        for index in 0..MAX_BYTES {
            let digit = u32::from(self.byte()?.checked_sub(self.excluded)?);
            value = value.wrapping_add(digit << (index * BITS_A_BYTE));
            if digit < 256 - HIGH_CODES - u32::from(self.excluded) {
                break;
            }
        }
        Some(value)
    }

    pub(super) fn signed(&mut self) -> Option<i32> {
        let zigzag = self.unsigned()?;
        Some((zigzag >> 1) as i32 ^ -((zigzag & 1) as i32))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As `CompressedWriteStream::write_int` does.
    pub(in super::super) fn written(mut value: u32, excluded: u8) -> Vec<u8> {
        let low = 256 - HIGH_CODES - u32::from(excluded);
        let mut bytes = Vec::new();
        for _ in 1..MAX_BYTES {
            if value < low {
                break;
            }
            value -= low;
            bytes.push((low + value % HIGH_CODES) as u8 + excluded);
            value /= HIGH_CODES;
        }
        bytes.push(value as u8 + excluded);
        bytes
    }

    #[test]
    fn small_integers_are_a_byte() {
        assert_eq!(Unsigned5::new(&[191], 0).unsigned(), Some(191));
        assert_eq!(Unsigned5::new(&[192, 0], 0).unsigned(), Some(192));
        assert_eq!(Unsigned5::new(&[1], 1).unsigned(), Some(0));
        assert_eq!(Unsigned5::new(&[0], 1).unsigned(), None);
        assert_eq!(Unsigned5::new(&[200], 0).unsigned(), None);
        assert_eq!(Unsigned5::new(&[3], 0).signed(), Some(-2));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(value: u32, excluded in 0_u8..2) {
            let bytes = written(value, excluded);
            prop_assert!(bytes.len() <= MAX_BYTES as usize);
            let mut read = Unsigned5::new(&bytes, excluded);
            prop_assert_eq!(read.unsigned(), Some(value));
            prop_assert_eq!(read.byte(), None);
        }

        #[test]
        fn any_bytes_have_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..12), excluded in 0_u8..2) {
            let mut read = Unsigned5::new(&bytes, excluded);
            while read.signed().is_some() {}
        }
    }
}
