//! A recording as a fuzzer writes it, replayed to its report.

use super::Judging;
use super::replay::replay_from;

/// Magic and version.
const PREAMBLE_BYTES: usize = 16;
/// Kind and length.
const FRAME_BYTES: usize = 5;
const CHECKSUM_BYTES: usize = 4;

/// Any bytes, and then the same with the checksums that their entries ask for: no mutation finds
/// one by chance.
pub fn recording(bytes: &[u8]) {
    let replay = |bytes: &[u8]| {
        let _ = replay_from(bytes, bytes.len() as u64, &Judging::default());
    };
    replay(bytes);
    replay(&with_checksums(bytes));
}

fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut whole = bytes.to_vec();
    let mut at = PREAMBLE_BYTES;
    while let Some(length) = whole.get(at + 1..).and_then(<[u8]>::first_chunk) {
        let end = at + FRAME_BYTES + u32::from_le_bytes(*length) as usize;
        let Some(entry) = whole.get(at..end) else {
            break;
        };
        let checksum = crc32fast::hash(entry).to_le_bytes();
        let Some(place) = whole.get_mut(end..end + CHECKSUM_BYTES) else {
            break;
        };
        place.copy_from_slice(&checksum);
        at = end + CHECKSUM_BYTES;
    }
    whole
}
