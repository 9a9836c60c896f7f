//! The event ring: bytes leave it in the order in which the kernel committed them.

use std::{
    mem::{self, offset_of},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use aya::maps::{Map, MapData};
use bytes::{Bytes, BytesMut};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep_until},
};
use tracer_ebpf::abi::event::{EventHeader, RING_FILLING_PART};

use super::{error::KernelError, ring_memory::RingMemory};
use crate::clock;

/// The reader leaves the ring alone for so long: of a connection that lives shorter it then sees
/// one notice, and none of its changes. Below the time in which a level is to be known, and short
/// enough for a stack: what it was taken of may end or change meanwhile.
const PAUSE: Duration = Duration::from_millis(10);
/// Where they came so fast that the ring filled: the kernel side ends a pause for a stack only
/// (`notice::wake_up`).
const SHORT_PAUSE: Duration = Duration::from_millis(2);
/// Whoever fills the ring faster than it is read must not keep the reader for ever.
const BATCH: usize = 4096;
/// With so many in one pause, more will have come by the end of the next.
const BUSY: usize = 32;
/// Where many come and go, what was told so lately is looked at after the next pause. Of the sockets
/// that are open at a look, nearly all are a moment old, and gone by then.
const YOUNG: Duration = Duration::from_millis(3);
/// Notices without a stack copy are shorter, and share an allocation. A stack copy may have to wait
/// for its unwinding, and must keep nobody else's memory meanwhile.
const SHARED_MAX_BYTES: usize = 256;
const SHARED_BYTES: usize = 64 * SHARED_MAX_BYTES;
/// What is taken goes back to the kernel side in such pieces, so that a full ring has room again
/// before all of it is copied.
const STRIDE_BYTES: u64 = 256 * 1024;

/// Reads an entry where it lies. True if it need not be copied.
pub type Passes<'a> = dyn FnMut(&[u8]) -> bool + 'a;

/// What was taken off the ring at once.
pub struct Taken {
    /// Oldest first, those that were passed over left out.
    pub notices: Vec<Bytes>,
    /// There was no more.
    pub is_all: bool,
}

pub struct Ring {
    fd: AsyncFd<OwnedFd>,
    memory: RingMemory,
    shared: BytesMut,
    taken_at: Instant,
    /// As [`Ring::take_for_now`] last found it due.
    pause: Duration,
    /// Some were left on the ring at the last taking, which were too many at once.
    is_cut: bool,
    /// Many waited when it was last taken from.
    is_busy: bool,
    /// Notices are on the ring, of which the kernel tells no more.
    has_waiting: bool,
    /// Programs that are loaded later name the map by its descriptor.
    _map: MapData,
}

impl Ring {
    pub(super) fn new(map: Map) -> Result<Self, KernelError> {
        let failed = |cause: String| KernelError::map("EVENTS", cause);
        let Map::RingBuf(map) = map else {
            return Err(failed("it is no ring".to_owned()));
        };
        let info = map.info().map_err(|error| failed(error.to_string()))?;
        let memory = RingMemory::map(map.fd().as_fd(), info.max_entries())
            .map_err(|error| failed(error.to_string()))?;
        let fd = map.fd().as_fd().try_clone_to_owned();
        let fd = fd.map_err(KernelError::Wait)?;
        // SAFETY: an owned descriptor stays open, and the same, for as long as it is owned.
        let fd =
            unsafe { AsyncFd::register(fd) }.map_err(|error| KernelError::Wait(error.into()))?;
        Ok(Self {
            fd,
            memory,
            shared: BytesMut::new(),
            taken_at: Instant::now(),
            pause: PAUSE,
            is_cut: false,
            is_busy: false,
            has_waiting: false,
            _map: map,
        })
    }

    /// Until then the ring is left alone, unless it fills.
    pub fn pause_end(&self) -> Instant {
        self.taken_at + self.pause
    }

    /// Waits until something is on the ring, and until the pause is over or stacks fill the ring.
    ///
    /// # Errors
    ///
    /// epoll failed.
    pub async fn ready(&mut self) -> Result<(), KernelError> {
        // Kept where it is: whoever waits for us may do something else, and come back.
        while !self.has_waiting {
            self.fd.readable().await?.clear_ready();
            // It may be told late, of what was taken since.
            self.has_waiting = self.memory.waiting_bytes() > 0;
        }
        while !self.is_filling() {
            tokio::select! {
                () = sleep_until(self.pause_end()) => break,
                woken = self.fd.readable() => woken?.clear_ready(),
            }
        }
        Ok(())
    }

    fn is_filling(&self) -> bool {
        self.memory.waiting_bytes() > self.memory.ring_bytes() / RING_FILLING_PART
    }

    /// Takes off all that is on the ring, oldest first, but not many more than [`BATCH`] entries at
    /// once. The one copy of an event's life is made here, unless `passes` says that it was read
    /// where it lies.
    ///
    /// The kernel side sends no notice of a socket whose latest notice the reader has not passed:
    /// what is looked up in its maps after this call is no older than the notices it returns.
    pub fn take(&mut self, passes: &mut Passes<'_>) -> Taken {
        self.has_waiting = false;
        self.take_until(u64::MAX, passes)
    }

    /// As [`Ring::take`], for who comes again after the pause: where many wait, and did so the last
    /// time, the youngest are left for then, at least one. The kernel wakes us for an entry that is
    /// committed where we stand (`bpf_ringbuf_commit`): behind, we are left in peace until the pause
    /// is over, or the ring fills.
    pub fn take_for_now(&mut self, passes: &mut Passes<'_>) -> Taken {
        let settled_ns = clock::boot_ns().saturating_sub(YOUNG.as_nanos() as u64);
        let is_filling = self.is_filling();
        let young = match is_filling {
            true => None,
            false => young_from(&self.memory, settled_ns),
        };
        // The first of many may be a level to be known at once.
        let is_lasting = mem::replace(&mut self.is_busy, young.is_some());
        // Of what was left on the ring by the last taking, that one has judged.
        if !self.is_cut {
            self.pause = if is_filling { SHORT_PAUSE } else { PAUSE };
        }
        match young {
            Some(position) if is_lasting => {
                self.has_waiting = true;
                self.take_until(position, passes)
            }
            _ => self.take(passes),
        }
    }

    fn take_until(&mut self, end: u64, passes: &mut Passes<'_>) -> Taken {
        let (mut notices, mut count) = (Vec::new(), 0);
        // Again until there is nothing new: the kernel wakes nobody for an entry that it committed
        // before it could know how far we are.
        let is_all = loop {
            let Some(entries) = self.take_stride(&mut notices, end, passes) else {
                break true;
            };
            count += entries;
            if count >= BATCH {
                break false;
            }
        };
        self.taken_at = Instant::now();
        self.is_cut = !is_all;
        Taken { notices, is_all }
    }

    /// Returns how many entries it took off, copied or passed over; `None` if there was nothing.
    fn take_stride(
        &mut self,
        notices: &mut Vec<Bytes>,
        end: u64,
        passes: &mut Passes<'_>,
    ) -> Option<usize> {
        let mut entries = self.memory.entries(end);
        let start = entries.position();
        let mut count = 0;
        while entries.position() - start < STRIDE_BYTES
            && count < BATCH
            && let Some(entry) = entries.next()
        {
            count += 1;
            if !passes(entry) {
                notices.push(copy(&mut self.shared, entry));
            }
        }
        let position = entries.position();
        if position == start {
            return None;
        }
        self.memory.move_to(position);
        Some(count)
    }
}

/// Where the youngest begin, told after `settled_ns`, or else the newest, if many wait.
fn young_from(memory: &RingMemory, settled_ns: u64) -> Option<u64> {
    let mut entries = memory.entries(u64::MAX);
    let (mut count, mut newest, mut young) = (0, None, None);
    loop {
        let at = entries.position();
        let Some(entry) = entries.next() else {
            return young.or(newest).filter(|_| count > BUSY);
        };
        count += 1;
        newest = Some(at);
        if young.is_none() && told_ns(entry) > settled_ns {
            young = newest;
        }
    }
}

/// When what an event tells of happened, nanoseconds of CLOCK_BOOTTIME.
fn told_ns(event: &[u8]) -> u64 {
    let at = offset_of!(EventHeader, time_ns);
    let bytes = event.get(at..at + size_of::<u64>());
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_ne_bytes)
}

fn copy(shared: &mut BytesMut, entry: &[u8]) -> Bytes {
    if entry.len() > SHARED_MAX_BYTES {
        return Bytes::copy_from_slice(entry);
    }
    if shared.capacity() < entry.len() {
        shared.reserve(SHARED_BYTES);
    }
    shared.extend_from_slice(entry);
    shared.split().freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::ring_memory::fake;

    fn put(ring: &mut fake::Ring, time_ns: u64) {
        let mut event = [0; 24];
        event[8..16].copy_from_slice(&time_ns.to_ne_bytes());
        ring.put(&event, 0);
    }

    #[test]
    fn of_few_all_are_taken_and_of_many_those_that_are_not_young() {
        let mut ring = fake::Ring::new();
        let memory = ring.map();
        assert_eq!(young_from(&memory, 10), None);
        for time_ns in 1..=BUSY as u64 {
            put(&mut ring, time_ns);
            assert_eq!(young_from(&memory, 10), None);
        }
        put(&mut ring, 1000);
        let entry_bytes = ring.produced / (BUSY as u64 + 1);
        assert_eq!(young_from(&memory, 10), Some(10 * entry_bytes));
        assert_eq!(young_from(&memory, 0), Some(0));
    }

    #[test]
    fn of_many_that_are_not_young_the_newest_is_left() {
        let mut ring = fake::Ring::new();
        for time_ns in 0..100 {
            put(&mut ring, time_ns);
        }
        let entry_bytes = ring.produced / 100;
        assert_eq!(young_from(&ring.map(), 1000), Some(99 * entry_bytes));
    }
}
