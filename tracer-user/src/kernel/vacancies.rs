//! Vacancies: entries of `SOCKETS` that ended sockets left to the next ones at their addresses, as
//! the kernel side's `vacancy` says. What nobody has used for a while is swept here.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{
    maps::{Map, MapData},
    util::KernelVersion,
};
use memmap2::{MmapOptions, MmapRaw};
use tracer_ebpf::abi::{config::VACANCIES_MAX, socket::TrackedSocket};

use super::{error::KernelError, support, syscall::bpf};

/// The first kernel that takes an entry out of a hash and says what it was
/// (`htab_map_lookup_and_delete_elem`): without, a socket that begins just then would be lost.
const CAN_SWEEP: KernelVersion = KernelVersion::new(5, 14, 0);
/// include/uapi/linux/bpf.h, `enum bpf_cmd`
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_long = 21;
/// Sockets for each vacancy there may be.
const SOCKETS_EACH: u32 = 64;

/// How many vacancies there may be among `max_sockets`.
pub(super) fn room_for(max_sockets: u32) -> u32 {
    let room = (max_sockets / SOCKETS_EACH).min(VACANCIES_MAX);
    // Where a program is preempted between finding a vacancy and filling it, the entry may be
    // another's by then.
    let cannot = KernelVersion::current().is_ok_and(|version| version < CAN_SWEEP)
        || support::preempts_tracepoints();
    if room == 0 || cannot {
        return 0;
    }
    1 << room.ilog2()
}

pub(super) struct Vacancies {
    slots: MmapRaw,
    /// The address in each slot whose entry was vacant at the last sweep.
    seen: Vec<u64>,
    sockets: OwnedFd,
    /// Programs that are loaded later name the map by its descriptor.
    _map: MapData,
}

impl Vacancies {
    /// `map` has the addresses of the vacancies among `sockets`.
    pub(super) fn map(map: Map, sockets: &Map) -> Result<Self, KernelError> {
        let (Map::Array(map), Map::HashMap(sockets)) = (map, sockets) else {
            return Err(refused("it is no array"));
        };
        let slots = MmapOptions::new()
            .len(VACANCIES_MAX as usize * size_of::<u64>())
            .map_raw(map.fd().as_fd().as_raw_fd())
            .map_err(refused)?;
        let sockets = sockets.fd().as_fd().try_clone_to_owned();
        Ok(Self {
            slots,
            seen: vec![0; VACANCIES_MAX as usize],
            sockets: sockets.map_err(refused)?,
            _map: map,
        })
    }

    /// Takes out what was vacant at the last sweep too. Returns what was taken out by mistake, as a
    /// socket began there just then: it is to be entered again.
    pub(super) fn sweep(&mut self) -> Result<Vec<(u64, TrackedSocket)>, KernelError> {
        let mut mistaken = Vec::new();
        for (index, seen) in self.seen.iter_mut().enumerate() {
            // SAFETY: `index` is below VACANCIES_MAX, all of which are mapped, and a page is
            // aligned for them. The kernel side too reads and writes whole words here.
            let slot = unsafe { &*self.slots.as_ptr().cast::<AtomicU64>().add(index) };
            let address = slot.load(Ordering::Relaxed);
            let was_vacant = address == mem::take(seen);
            if address == 0 {
                continue;
            }
            let entry = one(&self.sockets, BPF_MAP_LOOKUP_ELEM, address).map_err(refused)?;
            match entry {
                Some(tracked) if !tracked.record.is_vacant() => continue,
                Some(_) if !was_vacant => {
                    *seen = address;
                    continue;
                }
                _ => {}
            }
            let taken = one(&self.sockets, BPF_MAP_LOOKUP_AND_DELETE_ELEM, address);
            let taken = taken.map_err(refused)?;
            let _ = slot.compare_exchange(address, 0, Ordering::Relaxed, Ordering::Relaxed);
            if let Some(tracked) = taken.filter(|tracked| !tracked.record.is_vacant()) {
                let tracked = TrackedSocket {
                    kept_by: 0,
                    ..tracked
                };
                mistaken.push((address, tracked));
            }
        }
        Ok(mistaken)
    }
}

fn refused(cause: impl ToString) -> KernelError {
    KernelError::map("VACANCIES", cause)
}

/// The entry at `address` of `sockets`, looked up or taken out. `None` if there is none.
fn one(
    sockets: &OwnedFd,
    command: libc::c_long,
    address: u64,
) -> io::Result<Option<TrackedSocket>> {
    /// The part of `union bpf_attr` that is for single elements.
    #[repr(C)]
    struct Element {
        map_fd: libc::c_int,
        padding: u32,
        key: *const u64,
        value: *mut TrackedSocket,
        flags: u64,
    }
    let mut tracked = TrackedSocket::ZERO;
    let mut element = Element {
        map_fd: sockets.as_raw_fd(),
        padding: 0,
        key: &raw const address,
        value: &raw mut tracked,
        flags: 0,
    };
    // SAFETY: both pointers are to values of the map's key and value size, which live until the
    // call returns; any bytes are a `TrackedSocket`.
    match unsafe { bpf(command, &mut element) } {
        Ok(()) => Ok(Some(tracked)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::{VACANCIES_MAX, room_for};

    #[test]
    fn vacancies_are_few_and_a_power_of_two() {
        for (max_sockets, most) in [(1, 0), (63, 0), (64, 1), (1024, 16), (5000, 64)] {
            assert!(room_for(max_sockets) <= most);
        }
        for max_sockets in [0, 1, 64, 100, 65_536, u32::MAX] {
            let room = room_for(max_sockets);
            assert!(room == 0 || room.is_power_of_two() && room <= VACANCIES_MAX);
        }
    }
}
