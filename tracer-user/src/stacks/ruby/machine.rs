//! Ruby's virtual machine in a process: found by its own pointers, and the slot of its threads.

use std::ops::Range;

use super::super::elf::u64_at;
use super::super::memory::{Memory, object_at};
use super::layout::{
    EXECUTION_FRAME, EXECUTION_STACK, Layout, THREAD_NEXT, THREAD_VM, VM_MAIN_THREAD,
};

const THREAD_BYTES: usize = 96;
const EXECUTION_BYTES: usize = 64;
/// `RUBY_VM_THREAD_VM_STACK_SIZE` is 1 MiB, and can be told otherwise.
const STACK_MAX_WORDS: u64 = 1 << 27;
/// libruby's variables take some 200 KiB.
const VARIABLES_MAX_BYTES: u64 = 1 << 20;
const CANDIDATES_MAX: usize = 16_384;
/// read_each takes no more.
const CANDIDATES_AT_ONCE: usize = 1_024;
/// malloc's.
const MACHINE_ALIGN: u64 = 16;
const USER_END: u64 = 1 << 47;

/// Static thread-local variables end at the thread pointer (x86_64's TLS variant II). An allocator
/// that is preloaded may have some thousands of bytes between.
const LOCALS_MAX_BYTES: u64 = 16 << 10;
const PAGE_BYTES: u64 = 4_096;
const THREADS_MAX: usize = 64;

/// A thread that has been started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thread {
    address: u64,
    /// `rb_execution_context_t`, what it runs at the moment: a fiber has its own.
    execution: u64,
    thread_pointer: u64,
    next: u64,
}

/// The machine's main thread; `pointer` is the variable that has the machine, where it is known.
pub(super) fn main_thread(
    memory: Memory,
    layout: &Layout,
    pointer: Option<u64>,
    variables: &[(u64, u64)],
) -> Option<Thread> {
    let candidates = match pointer {
        Some(at) => memory.u64_at(at).into_iter().collect(),
        None => candidates(memory, variables),
    };
    candidates.chunks(CANDIDATES_AT_ONCE).find_map(|machines| {
        let places: Vec<u64> = machines
            .iter()
            .map(|machine| machine.saturating_add(VM_MAIN_THREAD))
            .collect();
        let threads = memory.read_each(&places, 8);
        machines.iter().zip(threads).find_map(|(machine, thread)| {
            let thread = object_at(u64_at(&thread?, 0))?;
            thread_of(memory, layout, *machine, thread)
        })
    })
}

/// Whatever looks like an address among the variables: 3.3 hides the name of the one that is meant.
fn candidates(memory: Memory, variables: &[(u64, u64)]) -> Vec<u64> {
    let mut found = Vec::new();
    for &(address, bytes) in variables {
        let bytes = bytes.min(VARIABLES_MAX_BYTES) as usize;
        let variables = memory.read(address, bytes & !7).unwrap_or_default();
        let words = (0..variables.len() / 8).map(|index| u64_at(&variables, index * 8));
        found.extend(words.filter(|word| {
            (PAGE_BYTES..USER_END).contains(word) && word.is_multiple_of(MACHINE_ALIGN)
        }));
    }
    found.sort_unstable();
    found.dedup();
    found.truncate(CANDIDATES_MAX);
    found
}

/// Machine, thread and what it runs point to each other, or these are none.
fn thread_of(memory: Memory, layout: &Layout, machine: u64, address: u64) -> Option<Thread> {
    let thread = memory.read(address, THREAD_BYTES)?;
    if u64_at(&thread, THREAD_VM) != machine {
        return None;
    }
    let execution_at = object_at(u64_at(&thread, layout.thread_execution.into()))?;
    let execution = memory.read(execution_at, EXECUTION_BYTES)?;
    if u64_at(&execution, layout.execution_thread.into()) != address {
        return None;
    }
    let word = |at: u16| u64_at(&execution, at.into());
    let [stack, words, frame] = [EXECUTION_STACK, EXECUTION_STACK + 8, EXECUTION_FRAME].map(word);
    let end = stack.checked_add(words.min(STACK_MAX_WORDS) * 8)?;
    if words > STACK_MAX_WORDS || !(stack..=end).contains(&frame) {
        return None;
    }
    let thread_pointer = match layout.thread_native {
        None => u64_at(&thread, layout.thread_id.into()),
        Some(at) => {
            let native = object_at(u64_at(&thread, at.into()))?;
            memory.u64_at(native.checked_add(layout.thread_id.into())?)?
        }
    };
    // What a thread pointer points to begins with itself (x86_64's TLS variant II).
    (memory.u64_at(thread_pointer)? == thread_pointer).then_some(Thread {
        address,
        execution: execution_at,
        thread_pointer,
        next: u64_at(&thread, THREAD_NEXT),
    })
}

/// At which distance from the thread pointer each thread keeps what it runs (`ruby_current_ec`).
pub(super) fn find_slot(memory: Memory, layout: &Layout, main: Thread) -> Option<i64> {
    let machine = memory.u64_at(main.address.checked_add(THREAD_VM as u64)?)?;
    let mut slots = holding(memory, &main);
    let mut thread = main;
    for _ in 1..THREADS_MAX {
        // The ring closes in a struct that is no thread.
        let next = object_at(thread.next).filter(|next| *next != main.address);
        let Some(next) = next.and_then(|next| thread_of(memory, layout, machine, next)) else {
            break;
        };
        let holding = holding(memory, &next);
        // A thread that is about to start has no slot yet, and says nothing.
        if !holding.is_empty() {
            slots.retain(|slot| holding.contains(slot));
        }
        thread = next;
    }
    // Nearest to the thread pointer: farther from it there may be memory of another kind.
    slots.last().copied()
}

/// In rising order.
fn holding(memory: Memory, thread: &Thread) -> Vec<i64> {
    let mut found = Vec::new();
    let Range { start, mut end } =
        thread.thread_pointer.saturating_sub(LOCALS_MAX_BYTES)..thread.thread_pointer;
    // From the thread pointer down, up to the first page that is not there.
    while end > start {
        let page = ((end - 1) & !(PAGE_BYTES - 1)).max(start);
        let Some(words) = memory.read(page, (end - page) as usize) else {
            break;
        };
        let holds = |index: &usize| u64_at(&words, index * 8) == thread.execution;
        found.extend((0..words.len() / 8).rev().filter(holds).map(|index| {
            let at = page + index as u64 * 8;
            at.wrapping_sub(thread.thread_pointer) as i64
        }));
        end = page;
    }
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Memory {
        Memory::of(std::process::id())
    }

    fn layout(minor: u32) -> Layout {
        let version = [3, minor, 0].map(u32::to_le_bytes).concat();
        Layout::of(&version, "libruby.so").expect("it is known")
    }

    /// A machine with its main thread, in memory of this process.
    struct Scene {
        variables: Vec<u64>,
        machine: Vec<u64>,
        thread: Vec<u64>,
        native: Vec<u64>,
        execution: Vec<u64>,
        /// Thread-local variables, and the thread pointer's own word.
        locals: Vec<u64>,
    }

    const LOCALS: usize = 3_000;
    const SLOT: usize = LOCALS - 400;

    fn scene(layout: &Layout) -> Scene {
        let mut scene = Scene {
            variables: vec![0, 7, u64::MAX, 0x1000, 0, 0],
            machine: vec![0; 16],
            thread: vec![0; 16],
            native: vec![0; 16],
            execution: vec![0; 16],
            locals: vec![0; LOCALS + 1],
        };
        let at = |words: &[u64]| words.as_ptr() as u64;
        let thread_pointer = at(&scene.locals) + LOCALS as u64 * 8;
        scene.locals[LOCALS] = thread_pointer;
        scene.locals[SLOT] = at(&scene.execution);
        scene.machine[VM_MAIN_THREAD as usize / 8] = at(&scene.thread);
        scene.thread[THREAD_VM / 8] = at(&scene.machine);
        scene.thread[usize::from(layout.thread_execution) / 8] = at(&scene.execution);
        match layout.thread_native {
            Some(native) => {
                scene.thread[usize::from(native) / 8] = at(&scene.native);
                scene.native[usize::from(layout.thread_id) / 8] = thread_pointer;
            }
            None => scene.thread[usize::from(layout.thread_id) / 8] = thread_pointer,
        }
        scene.execution[usize::from(layout.execution_thread) / 8] = at(&scene.thread);
        scene.execution[..3].copy_from_slice(&[0x10_0000, 1_024, 0x10_0800]);
        scene.variables[4] = at(&scene.machine);
        scene
    }

    fn slot(scene: &Scene, layout: &Layout, is_named: bool) -> Option<i64> {
        let variables = scene.variables.as_ptr() as u64;
        let pointer = is_named.then_some(variables + 32);
        let main = main_thread(own(), layout, pointer, &[(8, 64), (variables, 48)])?;
        find_slot(own(), layout, main)
    }

    #[test]
    fn a_machine_is_found_with_its_name_and_without() {
        for minor in 0..=4 {
            let layout = layout(minor);
            let scene = scene(&layout);
            // malloc gives what is aligned so; a vector of words may be less.
            if (scene.machine.as_ptr() as u64).is_multiple_of(MACHINE_ALIGN) {
                assert_eq!(slot(&scene, &layout, false), Some(-3_200), "3.{minor}");
            }
            assert_eq!(slot(&scene, &layout, true), Some(-3_200), "3.{minor}");
        }
    }

    #[test]
    fn pointers_that_do_not_agree_are_no_machine() {
        let layout = layout(1);
        let mut other = scene(&layout);
        other.execution[6] += 8;
        assert_eq!(slot(&other, &layout, true), None);
        let mut other = scene(&layout);
        other.execution[2] = 8;
        assert_eq!(slot(&other, &layout, true), None);
        let mut other = scene(&layout);
        other.locals[LOCALS] += 8;
        assert_eq!(slot(&other, &layout, true), None);
        let mut other = scene(&layout);
        other.locals[SLOT] = 0;
        assert_eq!(slot(&other, &layout, true), None);
    }
}
