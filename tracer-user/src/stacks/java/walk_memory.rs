//! The target's memory as one walk reads it: so many bytes in all, and then no more.

use std::cell::Cell;

use super::super::memory::Memory;

/// A hostile JVM has debug information of 768 KiB for each of 256 frames. A real stack takes some
/// KiB a frame.
pub(in super::super) const WALK_MAX_BYTES: usize = 8 << 20;
/// A read costs this much, however little it reads.
const READ_MIN_BYTES: usize = 64;

/// What a walk may still read.
#[derive(Debug)]
pub(super) struct Budget {
    /// `None` once it was asked for more than there was.
    left_bytes: Cell<Option<usize>>,
}

impl Budget {
    pub(super) fn of(bytes: usize) -> Self {
        Self {
            left_bytes: Cell::new(Some(bytes)),
        }
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.left_bytes.get().is_none()
    }

    fn take(&self, bytes: usize) -> Option<()> {
        let bytes = bytes.max(READ_MIN_BYTES);
        let left = self.left_bytes.get().and_then(|it| it.checked_sub(bytes));
        self.left_bytes.set(left);
        left.map(|_| ())
    }
}

/// Reads as [`Memory`] does, and nothing once the budget is used up.
#[derive(Clone, Copy, Debug)]
pub(super) struct WalkMemory<'walk> {
    memory: Memory,
    budget: &'walk Budget,
}

impl<'walk> WalkMemory<'walk> {
    pub(super) fn new(memory: Memory, budget: &'walk Budget) -> Self {
        Self { memory, budget }
    }

    pub(super) fn read_into(self, address: u64, buffer: &mut [u8]) -> Option<()> {
        self.budget.take(buffer.len())?;
        self.memory.read_into(address, buffer)
    }

    pub(super) fn read(self, address: u64, bytes: usize) -> Option<Vec<u8>> {
        self.budget.take(bytes)?;
        self.memory.read(address, bytes)
    }

    pub(super) fn u64_at(self, address: u64) -> Option<u64> {
        self.budget.take(size_of::<u64>())?;
        self.memory.u64_at(address)
    }
}
