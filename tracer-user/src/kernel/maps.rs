//! The maps that userspace reads: the truth about sockets, tallies and losses.

use std::{collections::HashMap, fmt, io};

use aya::{
    Ebpf,
    maps::{self, Map, MapData, MapError, PerCpuArray},
};
use serde::{Deserialize, Serialize};
use tracer_ebpf::abi::{
    counters::Counter,
    cpu::Cpu,
    interpreter::Interpreter,
    socket::{OpenerCounts, OpenerKey, SERVER_END, SocketRecord, TrackedSocket},
};

use super::{ask::Asking, batch::Batches, ended::Ended, error::KernelError, slots::Slots};

/// What the kernel side saw and lost, over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub seen: u64,
    pub matched: u64,
    pub ring_full: u64,
    pub map_full: u64,
    pub openers_full: u64,
    pub stack_ring_full: u64,
    pub stack_spared: u64,
    pub stack_fault: u64,
    /// Runs that the kernel left out (see [`super::misses`]), and changes of a map that it refused:
    /// the CPU was busy with a program of ours, or another one with the map.
    #[serde(default)]
    pub program_busy: u64,
    /// Of the runs that the kernel left out, those that a twin did.
    #[serde(skip)]
    pub caught_up: u64,
}

pub struct Maps {
    /// For the entries of `SOCKETS` and `OPENERS`, where the kernel preempts tracepoints' programs.
    asking: Option<Asking>,
    sockets: maps::HashMap<MapData, u64, TrackedSocket>,
    all_sockets: Batches<u64, TrackedSocket>,
    ended: Ended,
    slots: Slots,
    openers: maps::HashMap<MapData, OpenerKey, OpenerCounts>,
    all_openers: Batches<OpenerKey, OpenerCounts>,
    cpus: PerCpuArray<MapData, Cpu>,
    /// Beyond what `OPENERS` says is closed: sockets whose end no program saw. Of openers in there.
    ended_unseen: HashMap<OpenerKey, u64>,
}

/// The processes whose interpreter the kernel side follows.
pub struct Interpreters(maps::HashMap<MapData, u32, Interpreter>);

impl Interpreters {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let map = take_map(ebpf, "INTERPRETERS")?;
        Ok(Self(map.try_into().map_err(failed("INTERPRETERS"))?))
    }

    /// Has the process's frames taken from its next connect on.
    ///
    /// # Errors
    ///
    /// The map is full.
    pub fn follow(&mut self, pid: u32, interpreter: Interpreter) -> Result<(), KernelError> {
        self.0
            .insert(pid, interpreter, 0)
            .map_err(failed("INTERPRETERS"))
    }
}

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf, preempts: bool, slots: u32) -> Result<Self, KernelError> {
        let asking = preempts.then(|| Asking::load(ebpf)).transpose()?;
        let mut take = |name| take_map(ebpf, name);
        let (sockets, openers, cpus) = (take("SOCKETS")?, take("OPENERS")?, take("CPUS")?);
        let ended = Ended::map(take("ENDED")?)?;
        let slots = Slots::map(take("SLOT_KEYS")?, take("SLOTS")?, slots)?;
        Ok(Self {
            asking,
            ended,
            slots,
            all_sockets: Batches::of(&sockets, "SOCKETS")?,
            sockets: sockets.try_into().map_err(failed("SOCKETS"))?,
            all_openers: Batches::of(&openers, "OPENERS")?,
            openers: openers.try_into().map_err(failed("OPENERS"))?,
            cpus: cpus.try_into().map_err(failed("CPUS"))?,
            ended_unseen: HashMap::new(),
        })
    }

    /// Every tracked socket, one at a time. A walk beside a busy kernel may miss or repeat an entry.
    ///
    /// # Errors
    ///
    /// The kernel refused the look-up.
    pub fn each_socket(&self, mut take: impl FnMut(u64, &SocketRecord)) -> Result<(), KernelError> {
        self.slots.each(|address, record| take(address, &record));
        if let Some(asking) = &self.asking {
            let record = |address| asking.socket(address);
            let take = |address, record| take(address, &record);
            return each(self.sockets.keys(), record, take).map_err(failed("SOCKETS"));
        }
        self.all_sockets
            .each(|address, tracked| take(*address, &tracked.record))
            .map_err(failed("SOCKETS"))
    }

    /// The record of one socket, if it is tracked.
    ///
    /// # Errors
    ///
    /// The kernel refused the look-up.
    pub fn socket(&self, address: u64) -> Result<Option<SocketRecord>, KernelError> {
        if let Some(asking) = &self.asking {
            return asking.socket(address).map_err(failed("SOCKETS"));
        }
        if let Some(record) = self.slots.of(address) {
            return Ok(record);
        }
        match self.sockets.get(&address, 0) {
            Ok(tracked) => Ok(Some(tracked.record)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed("SOCKETS")(error)),
        }
    }

    /// Is this life of the socket at `address` known to be over? If not, [`Maps::socket`] tells.
    pub fn has_ended(&self, address: u64, opened_ns: u64) -> bool {
        let by_slot = self.slots.has_ended(address, opened_ns);
        by_slot.unwrap_or_else(|| self.ended.has(address, opened_ns))
    }

    /// Takes back what addresses have that are not used any more.
    pub fn take_back_slots(&mut self) {
        self.slots.take_back();
    }

    /// Ends the record of a socket that is gone and was opened at `opened_ns`, and counts it as closed.
    /// False if there was none of that life any more.
    ///
    /// # Errors
    ///
    /// The kernel refused it.
    pub fn end_socket(&mut self, address: u64, opened_ns: u64) -> Result<bool, KernelError> {
        let record = self.socket(address)?;
        let Some(record) = record.filter(|record| record.opened_ns == opened_ns) else {
            return Ok(false);
        };
        let was_there = self.forget_socket(address, opened_ns)?;
        if was_there && record.flags & SERVER_END == 0 {
            let opener = OpenerKey {
                start_ns: record.opener_start_ns,
                tgid: record.opener_tgid,
                padding: 0,
            };
            if self.opener(opener)?.is_some() {
                *self.ended_unseen.entry(opener).or_default() += 1;
            }
        }
        Ok(was_there)
    }

    /// False if it was gone already.
    fn forget_socket(&mut self, address: u64, opened_ns: u64) -> Result<bool, KernelError> {
        if let Some(asking) = &self.asking {
            return asking.forget_socket(address).map_err(failed("SOCKETS"));
        }
        if let Some(was_there) = self.slots.forget(address, opened_ns) {
            return Ok(was_there);
        }
        match self.sockets.remove(&address) {
            Ok(()) => Ok(true),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(error) => Err(failed("SOCKETS")(error)),
        }
    }

    fn opener(&self, key: OpenerKey) -> Result<Option<OpenerCounts>, KernelError> {
        if let Some(asking) = &self.asking {
            return asking.opener(key).map_err(failed("OPENERS"));
        }
        match self.openers.get(&key, 0) {
            Ok(counts) => Ok(Some(counts)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed("OPENERS")(error)),
        }
    }

    /// What each process opened and closed.
    ///
    /// # Errors
    ///
    /// The kernel refused the look-up.
    pub fn openers(&self) -> Result<Vec<(OpenerKey, OpenerCounts)>, KernelError> {
        let mut openers = self.counted_openers().map_err(failed("OPENERS"))?;
        for (opener, counts) in &mut openers {
            counts.closed += self.ended_unseen.get(opener).copied().unwrap_or_default();
        }
        Ok(openers)
    }

    fn counted_openers(&self) -> io::Result<Vec<(OpenerKey, OpenerCounts)>> {
        let mut openers = Vec::new();
        if let Some(asking) = &self.asking {
            let counts = |key| asking.opener(key);
            each(self.openers.keys(), counts, |key, counts| {
                openers.push((key, counts));
            })?;
        } else {
            self.all_openers
                .each(|key, counts| openers.push((*key, *counts)))?;
        }
        Ok(openers)
    }

    /// Removes the tally of an ended process, so that the map has room for the living.
    ///
    /// # Errors
    ///
    /// The kernel refused it.
    pub fn forget_opener(&mut self, key: OpenerKey) -> Result<(), KernelError> {
        self.ended_unseen.remove(&key);
        if let Some(asking) = &self.asking {
            return asking.forget_opener(key).map_err(failed("OPENERS"));
        }
        match self.openers.remove(&key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(failed("OPENERS")(error)),
        }
    }

    /// The counters of all CPUs, added up; runs that were left out are not among them.
    ///
    /// # Errors
    ///
    /// The kernel refused the look-up.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        let cpus = self.cpus.get(&0, 0).map_err(failed("CPUS"))?;
        let sum = |counter: Counter| cpus.iter().map(|cpu| cpu.counters[counter as usize]).sum();
        Ok(Counters {
            seen: sum(Counter::Passed) + sum(Counter::Matched),
            matched: sum(Counter::Matched),
            ring_full: sum(Counter::RingFull),
            map_full: sum(Counter::MapFull),
            openers_full: sum(Counter::OpenersFull),
            stack_ring_full: sum(Counter::StackRingFull),
            stack_spared: sum(Counter::StackSpared),
            stack_fault: sum(Counter::StackFault),
            program_busy: sum(Counter::MapBusy),
            caught_up: sum(Counter::CaughtUp),
        })
    }
}

/// Every entry whose key is there, as `look` has it; one that ends meanwhile is none.
fn each<K: Copy, V>(
    keys: impl Iterator<Item = Result<K, MapError>>,
    look: impl Fn(K) -> io::Result<Option<V>>,
    mut take: impl FnMut(K, V),
) -> io::Result<()> {
    for key in keys {
        let key = key.map_err(io::Error::other)?;
        if let Some(value) = look(key)? {
            take(key, value);
        }
    }
    Ok(())
}

/// Takes a map of the object. It can be taken once.
pub(super) fn take_map(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, KernelError> {
    let map = ebpf.take_map(name);
    map.ok_or_else(|| KernelError::map(name, "it was taken already"))
}

fn failed<E: fmt::Display>(name: &'static str) -> impl Fn(E) -> KernelError {
    move |error| KernelError::map(name, error)
}
