//! A record's life in `SOCKETS`: entered blank, filled in where it stands, marked when it is over.

use core::sync::atomic::{Ordering, compiler_fence};

use tracer_ebpf::abi::{
    counters::Counter,
    ended::{self, EndedMark},
    socket::{SocketRecord, TrackedSocket},
};

use crate::maps::{ENDED, SOCKETS, count};

/// What a record begins as. Here it costs no stack, of which a program and all it calls have 512
/// bytes.
static BLANK: TrackedSocket = TrackedSocket::ZERO;

/// include/uapi/asm-generic/errno-base.h
const ENOENT: i32 = 2;
const E2BIG: i32 = 7;
const EEXIST: i32 = 17;

/// Enters a blank record for the socket at `address`, to be filled in and then [`complete`]d.
/// `None` if there is one already and `flags` say BPF_NOEXIST, or if it was refused and counted.
#[inline(always)]
pub(crate) fn enter(address: u64, flags: u32) -> Option<*mut TrackedSocket> {
    // By reference: a value would be copied to the stack first.
    let blank: &TrackedSocket = &BLANK;
    if let Err(error) = SOCKETS.insert(address, blank, u64::from(flags)) {
        if error == -E2BIG {
            count(Counter::MapFull);
        } else if error != -EEXIST {
            count(Counter::MapBusy);
        }
        return None;
    }
    SOCKETS.get_ptr_mut(address)
}

/// Only with this is it a record to userspace, which may come across it at any time.
///
/// # Safety
///
/// `tracked` points to a value of `SOCKETS`.
#[inline(always)]
pub(crate) unsafe fn complete(tracked: *mut TrackedSocket, opened_ns: u64) {
    compiler_fence(Ordering::Release);
    // SAFETY: the caller's promise.
    unsafe { (&raw mut (*tracked).record.opened_ns).write_volatile(opened_ns) };
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
