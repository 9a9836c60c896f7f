//! A stack's ID: short enough for a label, and the same in every process and on every host.

use std::hash::{Hash, Hasher};

use crate::stacks::Frame;

/// Eight hexadecimal digits. Two stacks that share one are both told under it.
pub fn stack_id(frames: &[Frame]) -> String {
    let mut digest = Digest(crc32fast::Hasher::new());
    frames.hash(&mut digest);
    format!("{:08x}", digest.finish())
}

/// The standard library's own hash of a name may differ between two builds; this one may not.
struct Digest(crc32fast::Hasher);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        u64::from(self.0.clone().finalize())
    }
}
