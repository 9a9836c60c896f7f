//! The marks of ended sockets, read where the kernel side writes them.

use std::{
    os::fd::{AsFd, AsRawFd},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::{Map, MapData};
use memmap2::{MmapOptions, MmapRaw};
use tracer_ebpf::abi::ended::{self, ENDED_SLOTS, EndedMark};

use super::error::KernelError;

/// A look-up in `SOCKETS` is a system call. Of connections that come and go by the thousand, this
/// spares it for nearly all.
pub(super) struct Ended {
    slots: MmapRaw,
    /// Programs that are loaded later name the map by its descriptor.
    _map: MapData,
}

impl Ended {
    pub(super) fn map(map: Map) -> Result<Self, KernelError> {
        let Map::Array(map) = map else {
            return Err(KernelError::map("ENDED", "it is no array"));
        };
        let slots = MmapOptions::new()
            .len(ENDED_SLOTS as usize * size_of::<EndedMark>())
            .map_raw_read_only(map.fd().as_fd().as_raw_fd())
            .map_err(|error| KernelError::map("ENDED", error))?;
        Ok(Self { slots, _map: map })
    }

    pub(super) fn has(&self, address: u64, opened_ns: u64) -> bool {
        let slot = ended::slot(opened_ns) as usize;
        // SAFETY: `slot` is below ENDED_SLOTS, all of which are mapped, and a page is aligned for
        // them. The kernel side alone writes here, a word at a time.
        let mark = unsafe { &*self.slots.as_ptr().cast::<[AtomicU64; 2]>().add(slot) };
        let mark = mark.each_ref().map(|word| word.load(Ordering::Relaxed));
        mark == [address, opened_ns]
    }
}
