//! Batches: the entries of a hash map, many in one system call (BPF_MAP_LOOKUP_BATCH, 5.6).
//!
//! By the key, each costs two calls. And where a key has been removed meanwhile, the one behind it is
//! the map's first again (kernel/bpf/hashtab.c, `htab_map_get_next_key`): beside a busy kernel such a
//! walk repeats itself. A batch goes by buckets, and has each whole.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::{Pod, maps::Map};

use super::{error::KernelError, syscall::bpf};

/// include/uapi/linux/bpf.h, `enum bpf_cmd`
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
/// Entries of one call. A bucket that has more is refused; one of a map with as many buckets as
/// entries has a handful.
const ENTRIES: usize = 1024;

/// `union bpf_attr`, the part for batches.
#[repr(C)]
#[derive(Default)]
struct Batch {
    from: u64,
    next: u64,
    keys: u64,
    values: u64,
    /// Room when it is called, entries when it returns.
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

const _: () = {
    assert!(core::mem::offset_of!(Batch, count) == 32);
    assert!(size_of::<Batch>() == 56);
};

/// A hash map to be read whole. Its name stays with who asks.
pub(super) struct Batches(OwnedFd);

impl Batches {
    pub(super) fn of(map: &Map, name: &'static str) -> Result<Self, KernelError> {
        let Map::HashMap(map) = map else {
            return Err(KernelError::map(name, "it is no hash map"));
        };
        let fd = map.fd().as_fd().try_clone_to_owned();
        fd.map(Self).map_err(|error| KernelError::map(name, error))
    }

    /// Every entry, one at a time. One that begins or ends meanwhile may be among them or not.
    ///
    /// # Safety
    ///
    /// The map's keys are `K`, and its values `V`.
    pub(super) unsafe fn each<K: Pod, V: Pod>(
        &self,
        mut take: impl FnMut(&K, &V),
    ) -> io::Result<()> {
        let mut keys = Vec::<K>::with_capacity(ENTRIES);
        let mut values = Vec::<V>::with_capacity(ENTRIES);
        // The bucket to go on with; of the first call there is none.
        let (mut from, mut next) = (None::<u32>, 0_u32);
        loop {
            let mut batch = Batch {
                from: from
                    .as_ref()
                    .map_or(0, |from| std::ptr::from_ref(from) as u64),
                next: &raw mut next as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: ENTRIES as u32,
                map: self.0.as_raw_fd().cast_unsigned(),
                ..Batch::default()
            };
            // SAFETY: `batch` is what the command takes; there is room for as many keys and values
            // as it says, of the sizes that the caller promises, and for a bucket.
            let is_last = match unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut batch) } {
                Ok(()) => false,
                // That was the last of them, not none.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                Err(error) => return Err(error),
            };
            // SAFETY: the kernel filled as many, of which any bytes are a value.
            unsafe {
                keys.set_len(batch.count as usize);
                values.set_len(batch.count as usize);
            }
            for (key, value) in keys.iter().zip(&values) {
                take(key, value);
            }
            if is_last {
                return Ok(());
            }
            from = Some(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::fd::FromRawFd};

    use aya::maps::{self, MapData};

    use super::*;

    /// include/uapi/linux/bpf.h
    const BPF_MAP_CREATE: libc::c_long = 0;
    const BPF_MAP_TYPE_HASH: u32 = 1;

    fn map_of(entries: u32) -> Map {
        // Type, bytes of a key, bytes of a value, entries.
        let attributes = [BPF_MAP_TYPE_HASH, 8, 8, entries];
        // SAFETY: a beginning of `union bpf_attr` as the command takes it.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_CREATE,
                attributes.as_ptr(),
                size_of_val(&attributes),
            )
        };
        assert!(fd >= 0, "to make a map takes root");
        // SAFETY: it was just made, and is nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        Map::HashMap(MapData::from_fd(fd).expect("a map"))
    }

    #[test]
    fn every_entry_is_seen_once_whatever_their_number() {
        let most = 3 * ENTRIES as u64 + 17;
        let map = map_of(most as u32);
        let batches = Batches::of(&map, "TEST").expect("a hash map");
        let mut map: maps::HashMap<MapData, u64, u64> = map.try_into().expect("of words");
        let mut expected = BTreeMap::new();
        for entries in [0, 1, ENTRIES as u64, most] {
            for key in expected.len() as u64..entries {
                map.insert(key, !key, 0).expect("room");
                expected.insert(key, !key);
            }
            let mut seen = BTreeMap::new();
            // SAFETY: keys and values of the map are words.
            unsafe {
                batches.each(|key: &u64, value: &u64| {
                    assert_eq!(seen.insert(*key, *value), None, "{key} comes twice");
                })
            }
            .expect("a walk");
            assert_eq!(seen, expected);
        }
    }
}
