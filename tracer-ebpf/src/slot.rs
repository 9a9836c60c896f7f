//! A slot: where the sockets at an address that is used again and again have their records.
//!
//! The kernel gives a socket's memory to the next socket soon: a machine whose clients come and go
//! uses the same few hundred addresses over and over. Their records are found by reckoning, and stay
//! where they are; in the hash a socket that begins or ends has to be entered or taken out, and its
//! entry comes from memory which no cache has.
//!
//! An address is given a slot when a socket there ends, if the slot is free: sockets that stay for
//! good take none. While an address has a slot, the hash has nothing for it, except one that began
//! while the slot was about to be taken back.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use tracer_ebpf::abi::{
    slot::{self, LEAVING, SLOTS_MAX},
    socket::TrackedSocket,
};

use crate::{
    globals::config,
    maps::{add, full_barrier},
    record,
};

/// Bound: `Config::slots`. Written here, mapped by userspace, which ends records that are left
/// over. Full: the address has no slot.
#[map]
static SLOTS: Array<TrackedSocket> = Array::with_max_entries(SLOTS_MAX, BPF_F_MMAPABLE);

/// Whose each slot is. Bound: one a slot. Written here, and by userspace, which takes slots back.
#[map]
static SLOT_KEYS: Array<u64> = Array::with_max_entries(SLOTS_MAX, BPF_F_MMAPABLE);

/// How many programs are about to give a slot away. Bound: one. Written and read here.
#[map]
static GIVING: Array<u64> = Array::with_max_entries(1, 0);

/// The slot that `address` has, if that is where its records are: into one that is about to be taken
/// back no record comes, but one that is there stays until its socket ends, and a new life of that
/// socket takes its place.
#[inline(always)]
pub(crate) fn of(address: u64) -> Option<*mut TrackedSocket> {
    let index = index(address)?;
    let key = SLOT_KEYS.get_ptr(index)?;
    // SAFETY: a value of the map outlives the program's run.
    let key = unsafe { key.read_volatile() };
    if key & !LEAVING != address {
        return None;
    }
    let slot = SLOTS.get_ptr_mut(index)?;
    // SAFETY: as above.
    (key & LEAVING == 0 || unsafe { holds_record(slot) }).then_some(slot)
}

/// # Safety
///
/// `slot` is one that [`of`] gave.
#[inline(always)]
pub(crate) unsafe fn holds_record(slot: *const TrackedSocket) -> bool {
    // SAFETY: the caller's promise; a slot outlives the program's run.
    unsafe { !(*slot).record.is_vacant() }
}

/// Gives `address` its slot, if that is free. Its socket has ended, and the hash has no record of it
/// any more.
#[inline(always)]
pub(crate) fn give(address: u64) -> Option<()> {
    let index = index(address)?;
    let key = SLOT_KEYS.get_ptr_mut(index)?;
    let tracked = SLOTS.get_ptr_mut(index)?;
    let giving = GIVING.get_ptr_mut(0)?;
    // SAFETY: values of maps outlive the program's run. There is no compare-and-exchange on 5.10:
    // whoever added one and then reads one came first, and all who came later see it. They leave
    // the slot as it is, for another end.
    unsafe {
        if key.read_volatile() != 0 {
            return None;
        }
        add(giving, 1);
        if giving.read_volatile() == 1 && key.read_volatile() == 0 {
            (&raw mut (*tracked).address).write_volatile(address);
            key.write_volatile(address);
        }
        add(giving, u64::MAX);
    }
    Some(())
}

#[inline(always)]
fn index(address: u64) -> Option<u32> {
    let slots = config!(slots);
    (slots != 0).then(|| slot::index(low_half(address), slots))
}

/// The verifier lets nobody reckon with an address whose type it knows. One that lies on the stack
/// and has a byte overwritten is none any more.
#[inline(always)]
fn low_half(address: u64) -> u32 {
    let mut bytes = 0_u64;
    let at = &raw mut bytes;
    // SAFETY: all within `bytes`; the low half is first, as every machine that connleak runs on is
    // little-endian.
    unsafe {
        at.write_volatile(address);
        at.cast::<u8>().add(7).write_volatile(0);
        at.cast::<u32>().read_volatile()
    }
}

/// Has a slot say what `draft` does. Userspace may come across it at any time: it is vacant until its
/// first word is written, the last.
///
/// # Safety
///
/// `slot` is one that no other program begins in, and `draft` a record that nobody changes.
#[inline(always)]
pub(crate) unsafe fn begin(slot: *mut TrackedSocket, draft: *const TrackedSocket) {
    // SAFETY: the caller's promise.
    unsafe {
        vacate(slot);
        (&raw mut (*slot).noticed_at).write_volatile((*draft).noticed_at);
        record::copy(&raw mut (*slot).record, &raw const (*draft).record);
    }
}

/// The same of a socket older than tracing, while programs run that may find it.
///
/// # Safety
///
/// `slot` is vacant, and no hook begins or ends a record there.
#[inline(always)]
pub(crate) unsafe fn seed(slot: *mut TrackedSocket, seed: &TrackedSocket) {
    // SAFETY: the caller's promise. The flags make it a record, so they come last.
    unsafe {
        let mut draft = *seed;
        draft.record.flags = 0;
        begin(slot, &raw const draft);
        (&raw mut (*slot).record.flags).write_volatile(seed.record.flags);
    }
}

/// Leaves a slot vacant.
///
/// # Safety
///
/// The slot's socket ends here: nobody begins one there before its memory is free.
#[inline(always)]
pub(crate) unsafe fn leave(slot: *mut TrackedSocket) {
    // SAFETY: the caller's promise.
    unsafe {
        vacate(slot);
        // As if it had been taken out of the hash, for the notice that comes next.
        full_barrier(&raw mut (*slot).noticed_at);
    }
}

/// # Safety
///
/// As of [`begin`] or [`leave`].
#[inline(always)]
unsafe fn vacate(slot: *mut TrackedSocket) {
    // SAFETY: the caller's promise.
    unsafe {
        let record = &raw mut (*slot).record;
        (&raw mut (*record).opened_ns).write_volatile(0);
        (&raw mut (*record).flags).write_volatile(0);
    }
}
