//! A record's life in `SOCKETS`: drafted, entered whole, marked when it is over.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use tracer_ebpf::abi::{
    counters::Counter,
    ended::{self, EndedMark},
    socket::{SocketRecord, TrackedSocket},
};

use crate::{
    maps::{ENDED, SOCKETS, count},
    running::Turn,
};

/// Where records are made: here they cost no stack, of which a program and all it calls have 512
/// bytes.
///
/// Bound: one a CPU and [`Turn`], as a twin interrupts its program. Written and read here.
#[map]
static DRAFTS: PerCpuArray<[TrackedSocket; 2]> = PerCpuArray::with_max_entries(1, 0);

/// include/uapi/asm-generic/errno-base.h
const ENOENT: i32 = 2;
const E2BIG: i32 = 7;
const EEXIST: i32 = 17;

/// A blank record to fill in, which is the caller's alone until it ends.
#[inline(always)]
pub(crate) fn draft(turn: Turn) -> Option<*mut TrackedSocket> {
    let drafts = DRAFTS.get_ptr_mut(0)?;
    // SAFETY: the map's value has two, and outlives the program's run.
    unsafe {
        let draft = &raw mut (*drafts)[turn as usize];
        for word in 0..size_of::<TrackedSocket>() / 8 {
            draft.cast::<u64>().add(word).write_volatile(0);
        }
        Some(draft)
    }
}

/// Enters `draft` as the record of the socket at `address`. False if there is one already and
/// `flags` say BPF_NOEXIST, or if it was refused and counted.
///
/// # Safety
///
/// `draft` is one of [`draft`]'s.
#[inline(always)]
pub(crate) unsafe fn enter(address: u64, draft: *const TrackedSocket, flags: u32) -> bool {
    // SAFETY: the caller's promise. By reference: a value would be copied to the stack first.
    let draft = unsafe { &*draft };
    let Err(error) = SOCKETS.insert(address, draft, u64::from(flags)) else {
        return true;
    };
    if error == -E2BIG {
        count(Counter::MapFull);
    } else if error != -EEXIST {
        count(Counter::MapBusy);
    }
    false
}

/// Takes it out. False if the kernel refused: then userspace finds it left over, when it looks for
/// what was refused.
#[inline(always)]
pub(crate) fn end(address: u64, opened_ns: u64) -> bool {
    if let Err(error) = SOCKETS.remove(address) {
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

/// Copies a record word by word. A `memcpy` of this size becomes a loop over its bytes, eight
/// times as much for the verifier to go through.
///
/// # Safety
///
/// Both pointers are to records that no other program changes meanwhile.
#[inline(always)]
pub(crate) unsafe fn copy(to: *mut SocketRecord, from: *const SocketRecord) {
    const WORDS: usize = size_of::<SocketRecord>() / 8;
    let (to, from) = (to.cast::<u64>(), from.cast::<u64>());
    for word in 0..WORDS {
        // SAFETY: within the records, whose alignment is a word's.
        unsafe { to.add(word).write_volatile(from.add(word).read_volatile()) };
    }
}
