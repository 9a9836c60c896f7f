//! The event ring: bytes leave it in the order in which the kernel committed them.

use std::{
    sync::atomic::{Ordering, fence},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use bytes::Bytes;
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep_until},
};

use super::error::KernelError;

/// The reader leaves the ring alone for so long: of a connection that lives shorter it then sees
/// one notice, and none of its changes. Far below the time in which a level is to be known.
const PAUSE: Duration = Duration::from_millis(5);
/// Whoever fills the ring faster than it is read must not keep the reader for ever.
pub const BATCH: usize = 4096;

pub struct Ring {
    fd: AsyncFd<RingBuf<MapData>>,
    taken_at: Instant,
}

impl Ring {
    pub(super) fn new(ring: RingBuf<MapData>) -> Result<Self, KernelError> {
        // SAFETY: a ring keeps one descriptor open for as long as it lives, and always names it.
        let fd =
            unsafe { AsyncFd::register(ring) }.map_err(|error| KernelError::Wait(error.into()))?;
        Ok(Self {
            fd,
            taken_at: Instant::now(),
        })
    }

    /// Waits until something is on the ring, but never less than [`PAUSE`] after the last taking.
    ///
    /// # Errors
    ///
    /// epoll failed.
    pub async fn ready(&mut self) -> Result<(), KernelError> {
        // In this order, or the end of each pause would wake a reader that has nothing to read.
        let mut ready = self.fd.readable_mut().await?;
        sleep_until(self.taken_at + PAUSE).await;
        ready.clear_ready();
        Ok(())
    }

    /// Takes off what is on the ring, oldest first, up to [`BATCH`] entries. The one copy of an
    /// event's life is made here.
    ///
    /// The kernel side sends no notice of a socket whose latest notice the reader has not passed:
    /// what is looked up in its maps after this call is no older than the notices it returns.
    pub fn take(&mut self) -> Vec<Bytes> {
        let mut taken = Vec::new();
        while taken.len() < BATCH
            && let Some(event) = self.fd.get_mut().next()
        {
            taken.push(Bytes::copy_from_slice(&event));
        }
        // The kernel side changes a record and then asks how far we are; we move on and then look
        // at the record. Without a full barrier on both sides each could miss the other.
        fence(Ordering::SeqCst);
        self.taken_at = Instant::now();
        taken
    }
}
