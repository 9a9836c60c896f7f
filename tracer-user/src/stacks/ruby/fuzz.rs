//! Ruby's memory as a fuzzer writes it.

use super::super::elf::u64_at;
use super::super::fuzz::{MEMORY, with_memory};
use super::Runtime;
use super::code::CodeReader;
use super::discover::{Symbols, find};
use super::layout::Layout;

/// Where an input has what: its version, the variable that has the machine, then frames.
const MACHINE: u64 = 16;
const FRAMES: usize = 24;
const FRAMES_MAX: usize = 4;
const VARIABLES_BYTES: u64 = 128;

/// The memory of a Ruby: its machine is looked for, with its name and without, and some of its code
/// is named.
pub fn memory(bytes: &[u8]) {
    let word = |index: usize| u64_at(bytes, FRAMES + index * 8);
    let frames: Vec<(u64, u64)> = (0..FRAMES_MAX)
        .map(|frame| (word(frame * 2), word(frame * 2 + 1)))
        .collect();
    with_memory(bytes, |memory| {
        for machine in [Some(MEMORY + MACHINE), None] {
            let symbols = Symbols {
                version: MEMORY,
                machine,
                variables: vec![(MEMORY, VARIABLES_BYTES)],
            };
            let _ = find(memory, &symbols, 0, "libruby.so");
        }
        if let Ok(layout) = Layout::of(bytes, "libruby.so") {
            let runtime = Runtime { layout };
            let named = CodeReader::default().name(&runtime, 1, std::process::id(), &frames);
            assert!(named.len() <= FRAMES_MAX);
        }
    });
}
