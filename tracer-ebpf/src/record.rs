//! A record's life in `SOCKETS`: drafted, entered whole, marked when it is over.

use core::mem::offset_of;

use aya_ebpf::{bindings::BPF_ANY, macros::map, maps::PerCpuArray};
use tracer_ebpf::abi::{
    counters::Counter,
    ended::{self, EndedMark},
    socket::{SocketRecord, TrackedSocket},
};

use crate::{
    maps::{ENDED, SOCKETS, count},
    preempted,
    running::Turn,
    vacancy,
};

/// Where records are made: here they cost no stack, of which a program and all it calls have 512
/// bytes.
///
/// Bound: one a CPU and [`Turn`], as a twin interrupts its program. Written and read here.
#[map]
static DRAFTS: PerCpuArray<[TrackedSocket; Turn::COUNT]> = PerCpuArray::with_max_entries(1, 0);

/// include/uapi/asm-generic/errno-base.h
const ENOENT: i32 = 2;
const E2BIG: i32 = 7;

/// A blank record to fill in, which is the caller's alone until it ends.
#[inline(always)]
pub(crate) fn draft(turn: Turn) -> Option<*mut TrackedSocket> {
    let drafts = DRAFTS.get_ptr_mut(0)?;
    // SAFETY: the map's value has one a turn, and outlives the program's run.
    unsafe {
        let draft = &raw mut (*drafts)[turn as usize];
        for word in 0..offset_of!(TrackedSocket, kept_by) / 8 {
            draft.cast::<u64>().add(word).write_volatile(0);
        }
        Some(draft)
    }
}

/// The entry at `address`: a socket's record, or a vacancy.
#[inline(always)]
pub(crate) fn place(address: u64) -> Option<*mut TrackedSocket> {
    SOCKETS.get_ptr_mut(address)
}

/// The record of the socket at `address`.
#[inline(always)]
pub(crate) fn of(address: u64) -> Option<*mut TrackedSocket> {
    // SAFETY: a value of the map, which outlives the program's run.
    place(address).filter(|&tracked| unsafe { !(*tracked).record.is_vacant() })
}

/// Enters `draft` as the record of the socket at `address`, in `place` if there is one: a vacancy,
/// or the socket's own former life. False if it was refused, and counted.
///
/// # Safety
///
/// `place` is the entry at `address`, and `draft` one of [`draft`]'s.
#[inline(always)]
pub(crate) unsafe fn enter(
    address: u64,
    place: Option<*mut TrackedSocket>,
    draft: *const TrackedSocket,
) -> bool {
    if let Some(tracked) = place {
        // SAFETY: the caller's promise; of one socket nothing else happens meanwhile.
        unsafe { write_over(tracked, draft) };
        return true;
    }
    // SAFETY: the caller's promise. By reference: a value would be copied to the stack first.
    let draft = unsafe { &*draft };
    let Err(error) = SOCKETS.insert(address, draft, u64::from(BPF_ANY)) else {
        return true;
    };
    preempted::refuse(address);
    count(if error == -E2BIG {
        Counter::MapFull
    } else {
        Counter::MapBusy
    });
    false
}

/// # Safety
///
/// `tracked` points to a value of `SOCKETS`, and `draft` is one of [`draft`]'s.
#[inline(always)]
unsafe fn write_over(tracked: *mut TrackedSocket, draft: *const TrackedSocket) {
    // SAFETY: the caller's promise. Userspace may come across it at any time: it is vacant until
    // its first word is written, the last. What keeps the entry stays.
    unsafe {
        vacancy::vacate(&raw mut (*tracked).record);
        (&raw mut (*tracked).noticed_at).write_volatile((*draft).noticed_at);
        copy(&raw mut (*tracked).record, &raw const (*draft).record);
    }
}

/// Ends the record at `address`. False if the kernel refused: then userspace finds it left over,
/// when it looks for what was refused.
///
/// # Safety
///
/// `tracked` is the value at `address`.
#[inline(always)]
pub(crate) unsafe fn end(address: u64, tracked: *mut TrackedSocket, opened_ns: u64) -> bool {
    // SAFETY: the caller's promise.
    if unsafe { !vacancy::leave(address, tracked, opened_ns) }
        && let Err(error) = SOCKETS.remove(address)
    {
        if error != -ENOENT {
            count(Counter::MapBusy);
        }
        return false;
    }
    if let Some(mark) = ENDED.get_ptr_mut(ended::slot(opened_ns)) {
        // SAFETY: a value of the map outlives the program's run.
        unsafe { mark.write_volatile(EndedMark { address, opened_ns }) };
    }
    true
}

/// Copies a record word by word, the first one last. A `memcpy` of this size becomes a loop over
/// its bytes, eight times as much for the verifier to go through.
///
/// # Safety
///
/// Both pointers are to records that no other program changes meanwhile.
#[inline(always)]
pub(crate) unsafe fn copy(to: *mut SocketRecord, from: *const SocketRecord) {
    const WORDS: usize = size_of::<SocketRecord>() / 8;
    let (to, from) = (to.cast::<u64>(), from.cast::<u64>());
    for word in (0..WORDS).rev() {
        // SAFETY: within the records, whose alignment is a word's.
        unsafe { to.add(word).write_volatile(from.add(word).read_volatile()) };
    }
}
