//! A mapped array: an array map of the kernel side as memory of this process, read and written
//! without a system call.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::{Map, MapData};
use memmap2::{MmapOptions, MmapRaw};

use super::error::KernelError;

/// Values of `WORDS` words each, one behind the other (kernel/bpf/arraymap.c, `elem_size`).
///
/// The kernel side writes them in place and at any time, a word at once. So does this side: of what
/// is mapped here no reference is ever made but to atomic words.
pub(super) struct Mapped<const WORDS: usize> {
    memory: MmapRaw,
    /// Programs that are loaded later name the map by its descriptor.
    _map: Option<MapData>,
}

impl<const WORDS: usize> Mapped<WORDS> {
    /// The first `values` of the map called `name`. Writing there ends the process.
    pub(super) fn to_read(
        map: Map,
        name: &'static str,
        values: usize,
    ) -> Result<Self, KernelError> {
        Self::map(map, name, values, MmapOptions::map_raw_read_only)
    }

    pub(super) fn to_write(
        map: Map,
        name: &'static str,
        values: usize,
    ) -> Result<Self, KernelError> {
        Self::map(map, name, values, MmapOptions::map_raw)
    }

    fn map(
        map: Map,
        name: &'static str,
        values: usize,
        by: fn(&MmapOptions, RawFd) -> io::Result<MmapRaw>,
    ) -> Result<Self, KernelError> {
        let Map::Array(map) = map else {
            return Err(KernelError::map(name, "it is no array"));
        };
        let mut options = MmapOptions::new();
        options.len(values * WORDS * size_of::<u64>());
        let memory = by(&options, map.fd().as_fd().as_raw_fd())
            .map_err(|error| KernelError::map(name, error))?;
        Ok(Self {
            memory,
            _map: Some(map),
        })
    }

    /// Memory that no kernel side has.
    #[cfg(test)]
    pub(super) fn zeros(values: usize) -> Self {
        let bytes = values * WORDS * size_of::<u64>();
        let memory = MmapOptions::new().len(bytes).map_anon().expect("memory");
        Self {
            memory: memory.into(),
            _map: None,
        }
    }

    pub(super) fn value(&self, index: usize) -> &[AtomicU64; WORDS] {
        assert!((index + 1) * WORDS * size_of::<u64>() <= self.memory.len());
        // SAFETY: within the mapping, as was just asserted, which lasts as long as `self`, and a
        // page is aligned for words. Whoever else writes here writes a word at once.
        unsafe { &*self.memory.as_ptr().cast::<[AtomicU64; WORDS]>().add(index) }
    }

    /// Its words, each at a time of its own.
    pub(super) fn read(&self, index: usize) -> [u64; WORDS] {
        let words = self.value(index).each_ref();
        words.map(|word| word.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_one_behind_the_other() {
        let mapped = Mapped::<3>::zeros(2);
        mapped.value(1)[0].store(7, Ordering::Relaxed);
        assert_eq!((mapped.read(0), mapped.read(1)), ([0; 3], [7, 0, 0]));
    }

    #[test]
    #[should_panic(expected = "self.memory.len()")]
    fn nothing_is_read_behind_the_mapping() {
        Mapped::<3>::zeros(2).read(2);
    }
}
