//! The thread state's slot: at which distance from the thread pointer each thread keeps its state.

use std::ops::Range;

use super::super::elf::u64_at;
use super::super::memory::Memory;
use super::layout::{Slots, StateList};

const STATES_MAX: usize = 64;
/// glibc's `struct pthread` has 2,304 bytes on x86_64, the keys' values in the second half of it.
const KEYS: Range<i64> = 0..2_304;
/// Static thread-local variables end at the thread pointer (x86_64's TLS variant II).
const LOCALS: Range<i64> = -512..0;

/// `None` while no thread has a state in a slot.
pub(super) fn find_slot(memory: Memory, runtime: u64, states: &StateList) -> Option<i64> {
    let interpreter = memory.u64_at(runtime.checked_add(states.interpreters_head)?)?;
    let mut state = memory.u64_at(interpreter.checked_add(states.threads_head)?)?;
    let places = match states.slots {
        Slots::Keys => KEYS,
        Slots::Locals => LOCALS,
    };
    // Distances that held the state in every thread so far.
    let mut slots: Option<Vec<i64>> = None;
    for _ in 0..STATES_MAX {
        if state == 0 {
            break;
        }
        let thread = memory.u64_at(state.checked_add(states.state_thread)?)?;
        if thread != 0
            && let Some(holding) = holding(memory, thread, &places, state)
            // A thread that is about to start has no slot yet, and says nothing.
            && !holding.is_empty()
        {
            match &mut slots {
                Some(slots) => slots.retain(|slot| holding.contains(slot)),
                None => slots = Some(holding),
            }
        }
        state = memory.u64_at(state.checked_add(states.state_next)?)?;
    }
    let slots = slots?;
    match states.slots {
        Slots::Keys => slots.first().copied(),
        // Beside the slot stands the one that is empty while the thread waits, as in connect: a
        // thread that waits tells them apart.
        Slots::Locals => (slots.len() == 1).then(|| slots[0]),
    }
}

fn holding(memory: Memory, thread: u64, places: &Range<i64>, state: u64) -> Option<Vec<i64>> {
    let bytes = usize::try_from(places.end - places.start).ok()?;
    let block = memory.read(thread.checked_add_signed(places.start)?, bytes)?;
    let distances = (places.start..).step_by(8);
    let words = (0..block.len() / 8).map(|index| u64_at(&block, index * 8));
    Some(
        distances
            .zip(words)
            .filter_map(|(distance, word)| (word == state).then_some(distance))
            .collect(),
    )
}
