//! A vacancy: the entry of `SOCKETS` that an ended socket leaves to the next one at its address.
//!
//! The kernel gives a socket's memory to the next socket soon. To leave the entry where it is spares
//! taking it out and entering it again, which cost more than all else that is done for a socket: the
//! two mostly happen on different CPUs (on loopback always), so that each entry comes from memory
//! which no cache has.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use tracer_ebpf::abi::{
    config::VACANCIES_MAX,
    ended,
    socket::{SocketRecord, TrackedSocket},
};

use crate::{globals::config, maps::full_barrier};

/// The addresses whose entries are kept, vacant or not, each in a slot that the time of a beginning
/// gave it.
///
/// Bound: `Config::vacancies`, so that they never crowd out sockets. Written here, mapped by
/// userspace, which clears what it swept. Full: where the slot is taken, the entry is taken out as
/// its socket ends.
#[map]
static VACANCIES: Array<u64> = Array::with_max_entries(VACANCIES_MAX, BPF_F_MMAPABLE);

/// Makes the entry a vacancy. False if there are enough.
///
/// # Safety
///
/// `tracked` points to the value at `address` of `SOCKETS`, whose socket ends here.
#[inline(always)]
pub(crate) unsafe fn leave(address: u64, tracked: *mut TrackedSocket, opened_ns: u64) -> bool {
    // SAFETY: the caller's promise; nobody begins a socket here before this one's memory is free.
    unsafe {
        // Once it is kept, no slot is looked at again: they lie where another CPU wrote last.
        if (*tracked).kept_by == 0 && !keep(address, tracked, opened_ns) {
            return false;
        }
        vacate(&raw mut (*tracked).record);
        // As if it had been taken out, for the notice that comes next.
        full_barrier(&raw mut (*tracked).noticed_at);
    }
    true
}

/// # Safety
///
/// As of [`leave`].
#[inline(always)]
unsafe fn keep(address: u64, tracked: *mut TrackedSocket, opened_ns: u64) -> bool {
    let vacancies = config!(vacancies);
    if vacancies == 0 {
        return false;
    }
    let index = ended::slot(opened_ns) & (vacancies - 1);
    let Some(slot) = VACANCIES.get_ptr_mut(index) else {
        return false;
    };
    // SAFETY: a slot outlives the program's run; the caller's promise. Two CPUs may both find it
    // free: then one entry more is kept than there are slots.
    unsafe {
        if slot.read_volatile() != 0 {
            return false;
        }
        slot.write_volatile(address);
        (*tracked).kept_by = u64::from(index) + 1;
    }
    true
}

/// # Safety
///
/// `record` points into a value of `SOCKETS`.
#[inline(always)]
pub(crate) unsafe fn vacate(record: *mut SocketRecord) {
    // SAFETY: the caller's promise.
    unsafe {
        (&raw mut (*record).opened_ns).write_volatile(0);
        (&raw mut (*record).flags).write_volatile(0);
    }
}
