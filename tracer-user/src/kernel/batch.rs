//! Batches: the entries of a hash map, many in one system call (BPF_MAP_LOOKUP_BATCH, 5.6).
//!
//! By the key, each costs two calls. And where a key has been removed meanwhile, the one behind it is
//! the map's first again (kernel/bpf/hashtab.c, `htab_map_get_next_key`): beside a busy kernel such a
//! walk repeats itself. A batch goes by buckets, and has each whole.
//!
//! While it goes over buckets it raises `bpf_prog_active` on its CPU, as a look-up does. Where that
//! keeps tracepoints' programs out, entries are asked for one by one (see [`super::ask`]).

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::{
    Pod,
    maps::{HashMap, Map, MapData},
};

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

/// A hash map to be read whole.
pub(super) struct Batches<K, V> {
    map: OwnedFd,
    _entries: PhantomData<(K, V)>,
}

impl<K: Pod, V: Pod> Batches<K, V> {
    pub(super) fn of(map: &Map, name: &'static str) -> Result<Self, KernelError> {
        // Which checks the sizes of keys and values.
        HashMap::<&MapData, K, V>::try_from(map).map_err(|error| KernelError::map(name, error))?;
        let Map::HashMap(map) = map else {
            return Err(KernelError::map(name, "it is no hash map"));
        };
        let map = map.fd().as_fd().try_clone_to_owned();
        Ok(Self {
            map: map.map_err(|error| KernelError::map(name, error))?,
            _entries: PhantomData,
        })
    }

    /// Every entry, one at a time. One that begins or ends meanwhile may be among them or not.
    pub(super) fn each(&self, mut take: impl FnMut(&K, &V)) -> io::Result<()> {
        let mut keys = Vec::<K>::with_capacity(ENTRIES);
        let mut values = Vec::<V>::with_capacity(ENTRIES);
        let mut bucket = 0_u32;
        let place = &raw mut bucket as u64;
        // The first call has no bucket to go on from.
        let mut from = 0;
        loop {
            let mut batch = Batch {
                from,
                next: place,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: ENTRIES as u32,
                map: self.map.as_raw_fd().cast_unsigned(),
                ..Batch::default()
            };
            // SAFETY: `batch` is what the command takes. There is room for a bucket, which is read
            // before it is written, and for as many keys and values as it says, whose sizes `of` has
            // checked.
            let is_last = match unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut batch) } {
                Ok(_) => false,
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
            from = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::fd::FromRawFd};

    use super::*;

    /// include/uapi/linux/bpf.h
    const BPF_MAP_CREATE: libc::c_long = 0;
    const BPF_MAP_TYPE_HASH: u32 = 1;

    fn map_of(entries: u32) -> Map {
        // Type, bytes of a key, bytes of a value, entries.
        let mut attributes = [BPF_MAP_TYPE_HASH, 8, 8, entries];
        // SAFETY: a beginning of `union bpf_attr` as the command takes it.
        let fd = unsafe { bpf(BPF_MAP_CREATE, &mut attributes) }.expect("to make a map, as root");
        // SAFETY: it was just made, and is nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        Map::HashMap(MapData::from_fd(fd).expect("a map"))
    }

    #[test]
    fn every_entry_is_seen_once_whatever_their_number() {
        let most = 3 * ENTRIES as u64 + 17;
        let map = map_of(most as u32);
        let batches = Batches::<u64, u64>::of(&map, "TEST").expect("a hash map");
        let mut map: HashMap<MapData, u64, u64> = map.try_into().expect("of words");
        let mut expected = BTreeMap::new();
        for entries in [0, 1, ENTRIES as u64, most] {
            for key in expected.len() as u64..entries {
                map.insert(key, !key, 0).expect("room");
                expected.insert(key, !key);
            }
            let mut seen = BTreeMap::new();
            let see = |key: &u64, value: &u64| {
                assert_eq!(seen.insert(*key, *value), None, "{key} comes twice");
            };
            batches.each(see).expect("a walk");
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_map_of_other_values_is_refused() {
        assert!(Batches::<u64, [u8; 16]>::of(&map_of(1), "TEST").is_err());
    }
}
