//! The thread state's slot: at which distance from the thread pointer each thread keeps its state.

use super::super::elf::u64_at;
use super::layout::StateList;
use super::memory::Memory;

const STATES_MAX: usize = 64;
/// glibc's `struct pthread` has 2,304 bytes on x86_64, the keys' values in the second half of it.
const THREAD_BYTES: usize = 2_304;

/// `None` while no thread has a state in a slot.
pub(super) fn find_slot(memory: Memory, runtime: u64, states: &StateList) -> Option<i64> {
    let interpreter = memory.u64_at(runtime.checked_add(states.interpreters_head)?)?;
    let mut state = memory.u64_at(interpreter.checked_add(states.threads_head)?)?;
    // Distances that held the state in every thread so far.
    let mut slots: Option<Vec<usize>> = None;
    for _ in 0..STATES_MAX {
        if state == 0 {
            break;
        }
        let thread = memory.u64_at(state.checked_add(states.state_thread)?)?;
        if thread != 0
            && let Some(block) = memory.read(thread, THREAD_BYTES)
        {
            let holding: Vec<usize> = holding(&block, state);
            // A thread that is about to start has no slot yet, and says nothing.
            if !holding.is_empty() {
                match &mut slots {
                    Some(slots) => slots.retain(|slot| holding.contains(slot)),
                    None => slots = Some(holding),
                }
            }
        }
        state = memory.u64_at(state.checked_add(states.state_next)?)?;
    }
    slots?.first().map(|slot| *slot as i64)
}

fn holding(block: &[u8], state: u64) -> Vec<usize> {
    (0..block.len() / 8)
        .map(|index| index * 8)
        .filter(|at| u64_at(block, *at) == state)
        .collect()
}
