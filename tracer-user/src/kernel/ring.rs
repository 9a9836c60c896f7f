//! The event ring: bytes leave it in the order in which the kernel committed them.

use aya::maps::{MapData, RingBuf};
use bytes::Bytes;
use tokio::io::unix::AsyncFd;

use super::error::KernelError;

pub struct Ring {
    fd: AsyncFd<RingBuf<MapData>>,
}

impl Ring {
    pub(super) fn new(ring: RingBuf<MapData>) -> Result<Self, KernelError> {
        // SAFETY: a ring keeps one descriptor open for as long as it lives, and always names it.
        let fd =
            unsafe { AsyncFd::register(ring) }.map_err(|error| KernelError::Wait(error.into()))?;
        Ok(Self { fd })
    }

    /// Waits until something is on the ring.
    ///
    /// # Errors
    ///
    /// epoll failed.
    pub async fn ready(&mut self) -> Result<(), KernelError> {
        self.fd.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// Takes the next event off the ring. The one copy of an event's life is made here.
    pub fn pop(&mut self) -> Option<Bytes> {
        self.fd
            .get_mut()
            .next()
            .map(|event| Bytes::copy_from_slice(&event))
    }
}
