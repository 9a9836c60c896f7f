//! A record's life, in `SOCKETS` or in a slot: drafted, entered whole, marked when it is over.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use tracer_ebpf::abi::{
    counters::Counter,
    ended::{self, EndedMark},
    socket::{OpenerKey, SocketRecord, TrackedSocket},
};

use crate::{
    maps::{ENDED, SOCKETS, count, cpu},
    preempted,
    running::Turn,
    slot, tally,
};

/// include/uapi/asm-generic/errno-base.h
const ENOENT: i32 = 2;
const E2BIG: i32 = 7;
const EEXIST: i32 = 17;

/// A blank record to fill in, which is the caller's alone until it ends.
#[inline(always)]
pub(crate) fn draft(turn: Turn) -> Option<*mut TrackedSocket> {
    let cpu = cpu()?;
    // SAFETY: the map's value has one a turn, and outlives the program's run.
    unsafe {
        let draft = &raw mut (*cpu).drafts[turn as usize];
        for word in 0..size_of::<TrackedSocket>() / 8 {
            draft.cast::<u64>().add(word).write_volatile(0);
        }
        Some(draft)
    }
}

/// The record of the socket at `address`.
#[inline(always)]
pub(crate) fn of(address: u64) -> Option<*mut TrackedSocket> {
    match slot::of(address) {
        // SAFETY: it is what `slot::of` gave.
        Some(slot) => unsafe { slot::holds_record(slot) }.then_some(slot),
        None => SOCKETS.get_ptr_mut(address),
    }
}

/// Enters `draft` as the record of the socket at `address`. False if it was refused, and counted.
///
/// A record that is there already is one of a former life: of the same socket, which connected before
/// and failed or was disconnected, or of one whose end no program saw. With this, at the latest, it is
/// over. Or a walk has added this very socket just before, for which nobody is said to have opened it.
///
/// # Safety
///
/// `draft` is one of [`draft`]'s, and the other hooks of the socket are kept away.
#[inline(always)]
pub(crate) unsafe fn enter(address: u64, draft: *const TrackedSocket) -> bool {
    if let Some(slot) = slot::of(address) {
        // SAFETY: the caller's promise; a slot outlives the program's run, and is not taken back
        // before that ends.
        unsafe {
            if slot::holds_record(slot)
                && let Some(opener) = former_opener(slot)
            {
                tally::closed(opener);
            }
            slot::begin(slot, draft);
        }
        return true;
    }
    // SAFETY: the caller's promise. By reference: a value would be copied to the stack first.
    let draft = unsafe { &*draft };
    let mut entered = SOCKETS.insert(address, draft, u64::from(BPF_NOEXIST));
    if entered == Err(-EEXIST) {
        let former = SOCKETS.get_ptr(address);
        // SAFETY: a value of the map outlives the program's run.
        let opener = former.and_then(|former| unsafe { former_opener(former) });
        entered = SOCKETS.insert(address, draft, u64::from(BPF_ANY));
        if let (Ok(()), Some(opener)) = (entered, opener) {
            tally::closed(opener);
        }
    }
    let Err(error) = entered else {
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
/// `tracked` is a record of a former life.
#[inline(always)]
unsafe fn former_opener(tracked: *const TrackedSocket) -> Option<OpenerKey> {
    // SAFETY: the caller's promise.
    unsafe { tally::opener(&raw const (*tracked).record, (*tracked).record.flags) }
}

/// A record's end, of which a notice may be sent: `remains` says the rest.
pub(crate) struct Ended {
    pub(crate) opened_ns: u64,
    pub(crate) noticed_at: u64,
    pub(crate) flags: u8,
    /// What is left in the slot, or a copy.
    pub(crate) remains: *const SocketRecord,
}

/// Ends the record of `tracked`, which is the one at `address`, with `flags`. `None` if the kernel
/// refused: then it stays as it is, and userspace finds it left over, when it looks for what was
/// refused.
///
/// An entry that is taken out of the hash may become another socket's at once: what it says is
/// copied to `copy_to` first.
///
/// # Safety
///
/// `tracked` is what [`of`] says of `address`, and this is a hook at the end of its socket.
#[inline(always)]
pub(crate) unsafe fn end(
    address: u64,
    tracked: *mut TrackedSocket,
    flags: u8,
    copy_to: &mut MaybeUninit<SocketRecord>,
) -> Option<Ended> {
    // SAFETY: the caller's promise.
    unsafe {
        let record = &raw const (*tracked).record;
        let mut ended = Ended {
            opened_ns: (*record).opened_ns,
            noticed_at: (*tracked).noticed_at,
            flags,
            remains: record,
        };
        if (*tracked).address != 0 {
            slot::leave(tracked);
        } else {
            copy(copy_to.as_mut_ptr(), record);
            ended.remains = copy_to.as_ptr();
            take_out(address)?;
            mark(address, ended.opened_ns);
        }
        Some(ended)
    }
}

#[inline(always)]
fn take_out(address: u64) -> Option<()> {
    if let Err(error) = SOCKETS.remove(address) {
        if error != -ENOENT {
            count(Counter::MapBusy);
        }
        return None;
    }
    slot::give(address);
    Some(())
}

#[inline(always)]
fn mark(address: u64, opened_ns: u64) {
    if let Some(mark) = ENDED.get_ptr_mut(ended::slot(opened_ns)) {
        // SAFETY: a value of the map outlives the program's run.
        unsafe { mark.write_volatile(EndedMark { address, opened_ns }) };
    }
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
