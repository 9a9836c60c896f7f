//! The slots: records of sockets at often used addresses, read where the kernel side's `slot` has
//! them, without a system call.

use std::{
    mem::{offset_of, replace, transmute},
    sync::atomic::{AtomicU64, Ordering, fence},
};

use aya::maps::Map;
use tracer_ebpf::abi::{
    slot::{self, LEAVING, SLOTS_MAX},
    socket::{SEEDED, SocketRecord, TrackedSocket},
};

use super::{error::KernelError, mapped::Mapped, support};

/// Sockets for each slot there may be.
const SOCKETS_EACH: u32 = 8;
/// How often another life may begin in a slot while it is read, before it is taken for vacant.
const READS_MAX: usize = 8;

const WORDS: usize = size_of::<TrackedSocket>() / size_of::<u64>();
const RECORD: usize = offset_of!(TrackedSocket, record) / size_of::<u64>();
const CHANGED: usize = offset_of!(TrackedSocket, record.changed_ns) / size_of::<u64>();
const FLAGS: usize = offset_of!(TrackedSocket, record.flags) / size_of::<u64>();

/// How many slots there are beside a map of `max_sockets`.
pub(super) fn beside(max_sockets: u32) -> u32 {
    let slots = (max_sockets / SOCKETS_EACH).min(SLOTS_MAX);
    // Where a program can be preempted, nobody knows when it is done with a slot. And elsewhere than
    // on x86_64 plain writes are not seen in their order.
    let can = cfg!(target_arch = "x86_64") && !support::preempts_tracepoints() && can_wait();
    if slots == 0 || !can {
        return 0;
    }
    1 << slots.ilog2()
}

pub(super) struct Slots {
    keys: Mapped<1>,
    records: Mapped<WORDS>,
    /// What each slot in use was at the last look: its key, and when its record last changed.
    seen: Vec<(u64, u64)>,
}

impl Slots {
    /// Of the slots that `keys` and `records` have, `count` are in use.
    pub(super) fn map(keys: Map, records: Map, count: u32) -> Result<Self, KernelError> {
        let slots = count.max(1) as usize;
        let keys = Mapped::to_write(keys, "SLOT_KEYS", slots)?;
        let records = Mapped::to_write(records, "SLOTS", slots)?;
        Ok(Self::of_memory(keys, records, count))
    }

    fn of_memory(keys: Mapped<1>, records: Mapped<WORDS>, count: u32) -> Self {
        Self {
            keys,
            records,
            seen: vec![(0, 0); count as usize],
        }
    }

    /// Every record there, with its socket's address.
    pub(super) fn each(&self, mut take: impl FnMut(u64, SocketRecord)) {
        for index in 0..self.seen.len() {
            let address = self.key(index).load(Ordering::Acquire) & !LEAVING;
            if let Some(record) = self.record(index).filter(|_| address != 0) {
                take(address, record);
            }
        }
    }

    /// What the slot of `address` says of it, if it has one. Then `SOCKETS` says nothing.
    pub(super) fn of(&self, address: u64) -> Option<Option<SocketRecord>> {
        let index = self.index(address)?;
        let key = self.key(index).load(Ordering::Acquire);
        let record = self.record(index);
        match key {
            key if key == address => Some(record),
            key if key & !LEAVING == address && record.is_some() => Some(record),
            _ => None,
        }
    }

    /// Is the life of the socket at `address` that began at `opened_ns` over? `None` if its slot does
    /// not say. Of the record's two cache lines it reads one, which the kernel side is about to write.
    pub(super) fn has_ended(&self, address: u64, opened_ns: u64) -> Option<bool> {
        let index = self.index(address)?;
        let is_its_own = self.key(index).load(Ordering::Acquire) == address;
        is_its_own.then(|| self.words(index)[RECORD].load(Ordering::Relaxed) != opened_ns)
    }

    /// Ends the record of a socket that is gone and was opened at `opened_ns`. True if that life was
    /// still there; `None` if `address` has no slot.
    pub(super) fn forget(&self, address: u64, opened_ns: u64) -> Option<bool> {
        let index = self.index(address)?;
        self.of(address)?;
        // If another begins meanwhile, it is left alone.
        if opened_ns == 0 {
            let seeded = u64::from(SEEDED) << (8 * (offset_of!(SocketRecord, flags) % 8));
            let flags = self.words(index)[FLAGS].fetch_and(!seeded, Ordering::Relaxed);
            return Some(flags & seeded != 0);
        }
        let opened = &self.words(index)[RECORD];
        let ended = opened.compare_exchange(opened_ns, 0, Ordering::Relaxed, Ordering::Relaxed);
        Some(ended.is_ok())
    }

    /// Takes back the slots that have been of no use since the last time but one. First they are
    /// marked, and no record begins there any more.
    pub(super) fn take_back(&mut self) {
        let all = 0..self.seen.len();
        let marked = all.clone().filter(|&index| {
            let key = self.key(index).load(Ordering::Acquire);
            key & LEAVING != 0 && self.is_vacant(index)
        });
        let marked: Vec<usize> = marked.collect();
        // A second connect of a socket whose record is still there begins there all the same. Who
        // found it there has done so then.
        if !marked.is_empty() && wait_for_programs() {
            for index in marked {
                if self.is_vacant(index) {
                    self.words(index)[0].store(0, Ordering::Relaxed);
                    self.key(index).store(0, Ordering::Release);
                }
            }
        }
        for index in all {
            let key = self.key(index).load(Ordering::Acquire);
            let now = (key, self.words(index)[CHANGED].load(Ordering::Relaxed));
            let is_idle = replace(&mut self.seen[index], now) == now && self.is_vacant(index);
            if is_idle && key != 0 {
                self.key(index).fetch_or(LEAVING, Ordering::SeqCst);
            }
        }
    }

    fn index(&self, address: u64) -> Option<usize> {
        let count = self.seen.len() as u32;
        (count != 0).then(|| slot::index(address as u32, count) as usize)
    }

    fn key(&self, index: usize) -> &AtomicU64 {
        &self.keys.value(index)[0]
    }

    fn words(&self, index: usize) -> &[AtomicU64; WORDS] {
        self.records.value(index)
    }

    fn is_vacant(&self, index: usize) -> bool {
        self.record(index).is_none()
    }

    /// The record in a slot, as it was at one time: one that begins writes its first word first, as
    /// vacant, and last.
    fn record(&self, index: usize) -> Option<SocketRecord> {
        let words: &[AtomicU64] = &self.words(index)[RECORD..];
        for _ in 0..READS_MAX {
            let mut read = [0; WORDS - RECORD];
            for (read, word) in read.iter_mut().zip(words) {
                *read = word.load(Ordering::Acquire);
            }
            fence(Ordering::Acquire);
            if words[0].load(Ordering::Relaxed) == read[0] {
                // SAFETY: of the same size, integers and byte arrays only: any bytes are a value.
                let record = unsafe { transmute::<[u64; WORDS - RECORD], SocketRecord>(read) };
                return Some(record).filter(|record| !record.is_vacant());
            }
        }
        None
    }
}

/// include/uapi/linux/membarrier.h
const MEMBARRIER_CMD_QUERY: libc::c_int = 0;
/// `synchronize_rcu`: the programs of tracepoints run with preemption off. Not to be had where CPUs
/// run without ticks (`nohz_full`).
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

fn membarrier(command: libc::c_int) -> libc::c_long {
    // SAFETY: its arguments are numbers.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
}

fn can_wait() -> bool {
    let commands = membarrier(MEMBARRIER_CMD_QUERY);
    commands > 0 && commands & libc::c_long::from(MEMBARRIER_CMD_GLOBAL) != 0
}

/// Waits until every program that runs now has ended. False if the kernel cannot say.
fn wait_for_programs() -> bool {
    membarrier(MEMBARRIER_CMD_GLOBAL) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: u64 = 0xffff_8881_0000_1000;

    fn slots(count: u32) -> Slots {
        let (keys, records) = (Mapped::zeros(count as usize), Mapped::zeros(count as usize));
        Slots::of_memory(keys, records, count)
    }

    /// As the kernel side does when a socket at `address` ends, and when one begins there.
    fn give(slots: &Slots, address: u64) -> usize {
        let index = slots.index(address).expect("there are slots");
        slots.key(index).store(address, Ordering::Relaxed);
        index
    }

    fn begin(slots: &Slots, address: u64, opened_ns: u64) {
        let index = give(slots, address);
        slots.words(index)[RECORD].store(opened_ns, Ordering::Relaxed);
    }

    #[test]
    fn a_slot_says_what_its_address_has() {
        let slots = slots(8);
        assert!(slots.of(ADDRESS).is_none());
        give(&slots, ADDRESS);
        assert_eq!(slots.of(ADDRESS), Some(None));
        begin(&slots, ADDRESS, 7);
        let record = slots.of(ADDRESS).flatten().expect("a record");
        assert_eq!(record.opened_ns, 7);
        assert_eq!(slots.has_ended(ADDRESS, 7), Some(false));
        assert_eq!(slots.has_ended(ADDRESS, 6), Some(true));
        assert_eq!(slots.has_ended(ADDRESS + 64, 7), None);
        let mut seen = Vec::new();
        slots.each(|address, record| seen.push((address, record.opened_ns)));
        assert_eq!(seen, [(ADDRESS, 7)]);
        assert_eq!(slots.forget(ADDRESS, 6), Some(false));
        assert_eq!(slots.forget(ADDRESS, 7), Some(true));
        assert_eq!(slots.of(ADDRESS), Some(None));
        assert_eq!(slots.forget(ADDRESS, 7), Some(false));
        assert_eq!(slots.forget(ADDRESS + 64, 7), None);
    }

    #[test]
    fn slots_are_taken_back_where_nothing_happens() {
        let mut slots = slots(2);
        let index = give(&slots, ADDRESS);
        let look = |slots: &mut Slots| {
            slots.take_back();
            slots.key(index).load(Ordering::Relaxed)
        };
        assert_eq!(look(&mut slots), ADDRESS, "it was just given");
        begin(&slots, ADDRESS, 7);
        assert_eq!(look(&mut slots), ADDRESS, "a socket has it");
        assert_eq!(look(&mut slots), ADDRESS, "a socket has it");
        assert_eq!(slots.forget(ADDRESS, 7), Some(true));
        assert_eq!(look(&mut slots), ADDRESS | LEAVING);
        // As a second connect does.
        slots.words(index)[RECORD].store(9, Ordering::Relaxed);
        assert_eq!(look(&mut slots), ADDRESS | LEAVING, "a socket has it");
        assert_eq!(slots.forget(ADDRESS, 9), Some(true));
        assert_eq!(look(&mut slots), 0);
    }

    #[test]
    fn a_seeded_record_is_forgotten_too() {
        let slots = slots(8);
        let index = give(&slots, ADDRESS);
        let seeded = u64::from(SEEDED) << 56;
        slots.words(index)[FLAGS].store(seeded | 1, Ordering::Relaxed);
        assert!(slots.of(ADDRESS).flatten().is_some());
        assert_eq!(slots.forget(ADDRESS, 0), Some(true));
        assert_eq!(slots.of(ADDRESS), Some(None));
    }

    #[test]
    fn a_record_keeps_a_slot_that_is_about_to_be_taken_back() {
        let slots = slots(8);
        begin(&slots, ADDRESS, 7);
        let index = slots.index(ADDRESS).expect("there are slots");
        slots.key(index).fetch_or(LEAVING, Ordering::Relaxed);
        assert!(slots.of(ADDRESS).flatten().is_some());
        assert_eq!(slots.forget(ADDRESS, 7), Some(true));
        assert_eq!(slots.of(ADDRESS), None, "the hash says it");
    }

    #[test]
    fn slots_are_few_and_a_power_of_two() {
        for (max_sockets, most) in [(1, 0), (7, 0), (8, 1), (1024, 128), (5000, 512)] {
            assert!(beside(max_sockets) <= most);
        }
        for max_sockets in [0, 1, 64, 100, 65_536, u32::MAX] {
            let slots = beside(max_sockets);
            assert!(slots == 0 || slots.is_power_of_two() && slots <= SLOTS_MAX);
        }
    }

    #[test]
    fn the_kernel_says_when_its_programs_are_done() {
        assert!(wait_for_programs());
    }
}
