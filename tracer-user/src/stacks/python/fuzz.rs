//! CPython's memory and files as a fuzzer writes them.

use super::super::elf::u64_at;
use super::super::fuzz::{MEMORY, with_memory};
use super::super::looked::Looked;
use super::super::symbol_table::SymbolTable;
use super::code::CodeReader;
use super::discover::find;
use super::symbols::Symbols;

/// Where an input has what; `_PyRuntime` stands at its start.
const TEXT_TYPE: u64 = 0x200;
const VERSION: u64 = 0x208;
const FRAMES: usize = 0x210;
const FRAMES_MAX: usize = 4;
const CODE_TYPE: u64 = 0x400;

/// The memory of a CPython: its runtime is looked for, and some of its code objects are named.
pub fn memory(bytes: &[u8]) {
    let symbols = Symbols {
        runtime: MEMORY,
        code_type: MEMORY + CODE_TYPE,
        text_type: MEMORY + TEXT_TYPE,
        version: Some(MEMORY + VERSION),
    };
    let word = |index: usize| u64_at(bytes, FRAMES + index * 8);
    let frames: Vec<(u64, u64)> = (0..FRAMES_MAX)
        .map(|frame| (word(frame * 2), word(frame * 2 + 1)))
        .collect();
    with_memory(bytes, |memory| {
        if let Looked::Found((runtime, _)) = find(memory, &symbols, 0, "libpython3.so") {
            let named = CodeReader::default().name(&runtime, 1, std::process::id(), &frames);
            assert!(named.len() <= FRAMES_MAX);
        }
    });
}

/// The symbol table of an interpreter.
pub(in super::super) fn symbols(table: &SymbolTable) {
    Symbols::find(table);
}
