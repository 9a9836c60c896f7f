//! The event ring: bytes leave it in the order in which the kernel committed them.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use aya::maps::{Map, MapData};
use bytes::{Bytes, BytesMut};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep_until},
};

use super::{error::KernelError, ring_memory::RingMemory};

/// The reader leaves the ring alone for so long: of a connection that lives shorter it then sees
/// one notice, and none of its changes. Below the time in which a level is to be known, and in which
/// stacks fill the ring: one process may send 200 at once, of 33 KiB each.
const PAUSE: Duration = Duration::from_millis(10);
/// Whoever fills the ring faster than it is read must not keep the reader for ever.
pub const BATCH: usize = 4096;
/// With so many in one pause, more will have come by the end of the next.
const BUSY: usize = 32;
/// Notices without a stack copy are shorter, and share an allocation. A stack copy may have to wait
/// for its unwinding, and must keep nobody else's memory meanwhile.
const SHARED_MAX_BYTES: usize = 256;
const SHARED_BYTES: usize = 64 * SHARED_MAX_BYTES;
/// What is taken goes back to the kernel side in such pieces, so that a full ring has room again
/// before all of it is copied.
const STRIDE_BYTES: u64 = 256 * 1024;

pub struct Ring {
    fd: AsyncFd<OwnedFd>,
    memory: RingMemory,
    shared: BytesMut,
    taken_at: Instant,
    /// The newest notice was left where it is.
    is_behind: bool,
    /// Programs that are loaded later name the map by its descriptor.
    _map: MapData,
}

impl Ring {
    pub(super) fn new(map: Map) -> Result<Self, KernelError> {
        let failed = |cause: String| KernelError::Map {
            name: "EVENTS",
            cause,
        };
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
            is_behind: false,
            _map: map,
        })
    }

    /// Until then the ring is left alone.
    pub fn pause_end(&self) -> Instant {
        self.taken_at + PAUSE
    }

    /// Waits until something is on the ring, but never less than [`PAUSE`] after the last taking.
    ///
    /// # Errors
    ///
    /// epoll failed.
    pub async fn ready(&mut self) -> Result<(), KernelError> {
        let pause_end = self.pause_end();
        if self.is_behind {
            sleep_until(pause_end).await;
            return Ok(());
        }
        // In this order, or the end of each pause would wake a reader that has nothing to read.
        let mut ready = self.fd.readable_mut().await?;
        sleep_until(pause_end).await;
        ready.clear_ready();
        Ok(())
    }

    /// Takes off what is on the ring, oldest first, about [`BATCH`] entries at most. The one copy of
    /// an event's life is made here.
    ///
    /// The kernel side sends no notice of a socket whose latest notice the reader has not passed:
    /// what is looked up in its maps after this call is no older than the notices it returns.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.take_and(Newest::Take)
    }

    /// As [`Ring::take`], for who comes again after the pause: where many waited, the newest one is
    /// left for then. The kernel wakes us for an entry that is committed where we stand
    /// (`bpf_ringbuf_commit`): one behind, we are left in peace until the pause is over.
    pub fn take_for_now(&mut self) -> Vec<Bytes> {
        self.take_and(Newest::Leave)
    }

    fn take_and(&mut self, newest: Newest) -> Vec<Bytes> {
        let mut taken = Vec::new();
        self.is_behind = false;
        // Again until there is nothing new: the kernel wakes nobody for an entry that it committed
        // before it could know how far we are.
        while taken.len() < BATCH && !self.is_behind && self.read(&mut taken, newest) {}
        self.taken_at = Instant::now();
        taken
    }

    /// Takes off one stride. False if there was nothing.
    fn read(&mut self, taken: &mut Vec<Bytes>, newest: Newest) -> bool {
        let mut entries = self.memory.entries();
        let start = entries.position();
        let mut newest_at = start;
        let has_more = loop {
            let at = entries.position();
            if taken.len() >= BATCH || at - start >= STRIDE_BYTES {
                break true;
            }
            let Some(entry) = entries.next() else {
                break false;
            };
            newest_at = at;
            taken.push(copy(&mut self.shared, entry));
        };
        let mut position = entries.position();
        if newest == Newest::Leave && !has_more && newest_at > start && taken.len() > BUSY {
            taken.pop();
            position = newest_at;
            self.is_behind = true;
        }
        if position > start {
            self.memory.move_to(position);
        }
        position > start
    }
}

/// What becomes of the newest of many notices.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Newest {
    Take,
    Leave,
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
