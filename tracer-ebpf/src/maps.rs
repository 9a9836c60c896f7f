//! Every map: its bound, who writes it, who reads it, and what happens when it is full.

use core::arch::asm;

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use tracer_ebpf::abi::{
    ask::Answer,
    counters::Counter,
    cpu::Cpu,
    ended::{ENDED_SLOTS, EndedMark},
    event::EventHeader,
    interpreter::Interpreter,
    socket::{OpenerCounts, OpenerKey, TrackedSocket},
};

use crate::globals::config;

/// The truth: one record a watched socket, keyed by the address of its `struct sock`, but for those
/// that have theirs in a [`crate::slot`].
///
/// Bound: `--max-sockets`. Written here only, read by userspace when it is told of a change and
/// when it reconciles. Full: the socket is not tracked and `MapFull` counts it; the next reconcile
/// adds it if there is room.
/// A hash and not socket-local storage, because 5.10 has no such storage for tracing programs.
#[map]
pub(crate) static SOCKETS: HashMap<u64, TrackedSocket> = HashMap::with_max_entries(65_536, 0);

/// What each process opened and closed since tracing started, right even when the ring lost it.
/// Userspace adds the ends that no program saw.
///
/// Bound: 16,384 processes. Written here; read, and cleared of ended processes, by userspace.
/// Full: the process's sockets are tracked all the same, and `OpenersFull` counts the misses.
#[map]
pub(crate) static OPENERS: HashMap<OpenerKey, OpenerCounts> = HashMap::with_max_entries(16_384, 0);

/// The processes whose interpreter's frames can be followed.
///
/// Bound: 16,384 processes. Written by userspace when it has found an interpreter, and here when
/// such a process forks; an entry goes when its process calls exec or ends. Read here at connect.
/// Full: the process's stacks have native frames only, and say so.
#[map]
pub(crate) static INTERPRETERS: HashMap<u32, Interpreter> = HashMap::with_max_entries(16_384, 0);

/// Notices to userspace.
///
/// Bound: `--ring-bytes`. Written here, read by userspace. Full: the notice is dropped and
/// `RingFull` counts it; `SOCKETS` stays right, so only promptness is lost, and the stack.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(8 * 1024 * 1024, 0);

/// Marks of sockets that were removed from `SOCKETS`; see `abi::ended`.
///
/// Bound: [`ENDED_SLOTS`]. Written here, mapped by userspace. Full: never, a slot has the latest
/// mark.
#[map]
pub(crate) static ENDED: Array<EndedMark> = Array::with_max_entries(ENDED_SLOTS, BPF_F_MMAPABLE);

/// The answer to what userspace asked last; see `programs::ask`.
///
/// Bound: one. Written here, mapped by userspace. Never full.
#[map]
pub(crate) static ANSWER: Array<Answer> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What each CPU has of its own; one map, as each that is looked into costs every event.
///
/// Bound: one a CPU. Written and read here; userspace sums the counters. Never full.
#[map]
static CPUS: PerCpuArray<Cpu> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's own.
#[inline(always)]
pub(crate) fn cpu() -> Option<*mut Cpu> {
    CPUS.get_ptr_mut(0)
}

#[inline(always)]
pub(crate) fn count(counter: Counter) {
    let preempts = config!(preempts) != 0;
    if let Some(cpu) = cpu() {
        // SAFETY: the slot belongs to this CPU and lives as long as the map; a program that
        // interrupts this one on the same CPU may cost one count, never memory. One that preempts
        // it could cost all that it counts.
        unsafe {
            let slot = &raw mut (*cpu).counters[counter as usize];
            if preempts {
                increment(slot);
            } else {
                *slot += 1;
            }
        }
    }
}

/// Adds one, whatever others do to `count` meanwhile.
///
/// # Safety
///
/// `count` points to an aligned u64 in a map's value.
#[inline(always)]
pub(crate) unsafe fn increment(count: *mut u64) {
    // SAFETY: the caller's promise.
    unsafe { add(count, 1) };
}

/// What was written before is seen by whoever does the same before they read: adding nothing is a
/// full barrier on x86_64.
///
/// # Safety
///
/// `at` points to an aligned u64 in a map's value.
#[inline(always)]
pub(crate) unsafe fn full_barrier(at: *mut u64) {
    // SAFETY: the caller's promise.
    unsafe { add(at, 0) };
}

/// Adds `what`, whatever others do meanwhile: BPF_ATOMIC | BPF_ADD.
///
/// # Safety
///
/// `at` points to an aligned u64 in a map's value.
#[inline(always)]
pub(crate) unsafe fn add(at: *mut u64, what: u64) {
    // SAFETY: the caller's promise; the instruction touches nothing else.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) at, in(reg) what) };
}

/// Puts `event` on the ring, or counts its loss.
#[inline(always)]
pub(crate) fn notify<T>(event: &T) -> bool {
    let sent = EVENTS.output::<T>(event, 0).is_ok();
    if !sent {
        count(Counter::RingFull);
    }
    sent
}

#[inline(always)]
pub(crate) fn header<T>(kind: u32, time_ns: u64) -> EventHeader {
    EventHeader {
        kind,
        length_bytes: size_of::<T>() as u32,
        time_ns,
    }
}
