//! The ring's memory as userspace maps it: two positions, and the entries between them.
//!
//! kernel/bpf/ringbuf.c since 5.8, `struct bpf_ringbuf`: a page with the consumer's position, which
//! we write; one with the producer's; then the entries, mapped twice in a row, so that one which
//! runs past the end lies in one piece. An entry is a header of 8 bytes and what it carries, padded
//! to 8 bytes. Positions only grow; of an entry's place they are the remainder.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

use memmap2::{MmapOptions, MmapRaw};

/// include/uapi/linux/bpf.h, `BPF_RINGBUF_*`: an entry that is still written, one that was given
/// up, and what stands before each.
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
const HEADER_BYTES: u64 = 8;

pub(super) struct RingMemory {
    consumer: MmapRaw,
    /// The producer's page and the entries.
    producer: MmapRaw,
    page_bytes: usize,
    ring_bytes: u64,
    /// Nobody else writes it.
    consumed: u64,
}

impl RingMemory {
    pub(super) fn map(ring: BorrowedFd<'_>, ring_bytes: u32) -> io::Result<Self> {
        let (fd, page_bytes) = (ring.as_raw_fd(), page_bytes());
        let consumer = MmapOptions::new().len(page_bytes).map_raw(fd)?;
        let producer = MmapOptions::new()
            .offset(page_bytes as u64)
            .len(page_bytes + 2 * ring_bytes as usize)
            .map_raw_read_only(fd)?;
        let mut memory = Self {
            consumer,
            producer,
            page_bytes,
            ring_bytes: u64::from(ring_bytes),
            consumed: 0,
        };
        memory.consumed = memory.consumer_position().load(Ordering::Acquire);
        Ok(memory)
    }

    fn consumer_position(&self) -> &AtomicU64 {
        // SAFETY: the page is mapped as long as `self` lives, and begins with the position, which
        // the kernel reads and we write, each at once.
        unsafe { &*self.consumer.as_ptr().cast::<AtomicU64>() }
    }

    fn produced(&self) -> u64 {
        // SAFETY: as above; the kernel writes it.
        let produced = unsafe { &*self.producer.as_ptr().cast::<AtomicU64>() };
        // Whoever sees it sees the headers before it, busy or not.
        produced.load(Ordering::Acquire)
    }

    pub(super) fn ring_bytes(&self) -> u64 {
        self.ring_bytes
    }

    /// From our position on.
    pub(super) fn waiting_bytes(&self) -> u64 {
        self.produced() - self.consumed
    }

    /// The committed entries from our position on, oldest first, as far as they were there when
    /// this was called and begin before the position `end`. None of them is written again before
    /// we move past it.
    pub(super) fn entries(&self, end: u64) -> Entries<'_> {
        Entries {
            memory: self,
            position: self.consumed,
            end: self.produced().min(end),
        }
    }

    /// Gives what lies before `position` back to the kernel side.
    ///
    /// A full barrier: what we read from now on is no older than the kernel side's knowing that we
    /// moved. It reads the position after it has changed something (see `notice` there), or
    /// committed an entry (`bpf_ringbuf_commit`), which are full barriers, too.
    pub(super) fn move_to(&mut self, position: u64) {
        self.consumed = position;
        self.consumer_position().store(position, Ordering::Release);
        fence(Ordering::SeqCst);
    }
}

fn page_bytes() -> usize {
    // SAFETY: it only asks for a constant of the system, which has it.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Reads entries without moving on.
pub(super) struct Entries<'ring> {
    memory: &'ring RingMemory,
    position: u64,
    end: u64,
}

impl Entries<'_> {
    /// Behind the entry that was read last.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    fn bytes(&self, position: u64) -> *const u8 {
        let place = (position % self.memory.ring_bytes) as usize;
        // SAFETY: the entries begin behind the producer's page, and `place` is within them.
        unsafe {
            let start = self.memory.producer.as_ptr().add(self.memory.page_bytes);
            start.add(place)
        }
    }
}

impl<'ring> Iterator for Entries<'ring> {
    type Item = &'ring [u8];

    fn next(&mut self) -> Option<&'ring [u8]> {
        while self.position < self.end {
            let at = self.bytes(self.position);
            // SAFETY: an entry begins here, for it lies before the producer's position; its header
            // is aligned and begins with its length and flags, which the kernel writes at once.
            let header = unsafe { &*at.cast::<AtomicU32>() };
            // Whoever sees it without BUSY sees what it carries.
            let header = header.load(Ordering::Acquire);
            if header & BUSY != 0 {
                return None;
            }
            let carried_bytes = u64::from(header & !DISCARDED);
            self.position += (HEADER_BYTES + carried_bytes).next_multiple_of(8);
            if header & DISCARDED != 0 {
                continue;
            }
            // SAFETY: an entry is no longer than the ring, which is mapped twice in a row. Nobody
            // writes it before we move past it, for which `move_to` wants the memory to itself.
            let carried = unsafe {
                let at = at.add(HEADER_BYTES as usize);
                std::slice::from_raw_parts(at, carried_bytes as usize)
            };
            return Some(carried);
        }
        None
    }
}

#[cfg(test)]
pub(super) mod fake {
    use std::{fs::File, os::fd::AsFd, os::unix::fs::FileExt};

    use super::{RingMemory, page_bytes};
    use crate::memory;

    const RING_BYTES: u32 = 16384;

    /// A file laid out as the kernel lays out a ring, the entries written twice by hand.
    pub(in super::super) struct Ring {
        file: File,
        pub(in super::super) produced: u64,
    }

    impl Ring {
        pub(in super::super) fn new() -> Self {
            let file = memory::file().expect("a file in memory");
            let ring_bytes = 2 * u64::from(RING_BYTES);
            file.set_len(2 * page_bytes() as u64 + ring_bytes)
                .expect("room");
            Self { file, produced: 0 }
        }

        pub(in super::super) fn map(&self) -> RingMemory {
            RingMemory::map(self.file.as_fd(), RING_BYTES).expect("it maps")
        }

        fn write(&self, bytes: &[u8], at: u64) {
            self.file.write_all_at(bytes, at).expect("a write");
        }

        pub(in super::super) fn put(&mut self, carried: &[u8], flags: u32) {
            let mut entry = (carried.len() as u32 | flags).to_ne_bytes().to_vec();
            entry.extend([0; 4]);
            entry.extend(carried);
            let (ring_bytes, start) = (u64::from(RING_BYTES), 2 * page_bytes() as u64);
            for (index, byte) in (0_u64..).zip(&entry) {
                let place = (self.produced + index) % ring_bytes;
                self.write(&[*byte], start + place);
                self.write(&[*byte], start + ring_bytes + place);
            }
            self.produced += (entry.len() as u64).next_multiple_of(8);
            self.write(&self.produced.to_ne_bytes(), page_bytes() as u64);
        }

        /// What the kernel side would read.
        pub(in super::super) fn consumed(&self) -> u64 {
            let mut bytes = [0; 8];
            self.file.read_exact_at(&mut bytes, 0).expect("a read");
            u64::from_ne_bytes(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BUSY, DISCARDED, fake};

    #[test]
    fn entries_come_in_order_and_whole_where_the_ring_begins_again() {
        let mut ring = fake::Ring::new();
        let mut memory = ring.map();
        for round in 0..200_u8 {
            for length in [1, 40, 300] {
                ring.put(&[round; 300][..length], 0);
            }
            ring.put(b"given up", DISCARDED);
            let mut entries = memory.entries(u64::MAX);
            let lengths: Vec<usize> = entries
                .by_ref()
                .map(|entry| {
                    assert!(entry.iter().all(|byte| *byte == round));
                    entry.len()
                })
                .collect();
            assert_eq!(lengths, [1, 40, 300]);
            let position = entries.position();
            assert_eq!(position, ring.produced);
            memory.move_to(position);
            assert_eq!(ring.consumed(), position);
        }
    }

    #[test]
    fn nothing_is_read_behind_an_entry_that_is_still_written() {
        let mut ring = fake::Ring::new();
        ring.put(b"first", 0);
        ring.put(b"second", BUSY);
        ring.put(b"third", 0);
        let memory = ring.map();
        let mut entries = memory.entries(u64::MAX);
        assert_eq!(entries.next(), Some(&b"first"[..]));
        assert_eq!((entries.next(), entries.next()), (None, None));
        assert_eq!(entries.position(), 16);
    }
}
