//! The parsers of this room as a fuzzer calls them: any bytes in, no result, and never a panic.

use std::rc::Rc;

use super::demangle::demangle;
use super::elf::{Elf, ElfSource, u64_at};
use super::forward::way_out;
use super::image::Image;
use super::modules::{Mapping, ModuleTable, parse_executable};
use super::{FrameSample, ProcessKey, Registers, Resolver, ResolverConfig, StackSample};

pub use super::python::fuzz as python;

const KEY: ProcessKey = ProcessKey {
    pid: u32::MAX,
    start_time_ns: 0,
};
const STACK: u64 = 0x7ffc_0000_0000;
const SECTION_MAX_BYTES: u64 = 1 << 20;
const STACK_WORDS: usize = 32;

/// An ELF file at the end, and before it the stack of the thread that ran it: headers, unwind
/// tables, symbols and debug information.
pub fn elf(bytes: &[u8]) {
    let Some((stack, file)) = bytes.split_at_checked(STACK_WORDS * 8) else {
        return;
    };
    let file = bytes::Bytes::copy_from_slice(file);
    let source = ElfSource::Memory(file.clone());
    let Ok(elf) = Elf::parse(&source) else {
        return;
    };
    let _ = elf.build_id(&source);
    let Ok(image) = Image::read(1, ElfSource::Memory(file), SECTION_MAX_BYTES) else {
        return;
    };
    let code = match elf.section(".text") {
        Some(text) => text.address..text.address.saturating_add(text.size_bytes),
        None => 0..4096,
    };
    if code.is_empty() {
        return;
    }
    let mut resolver = Resolver::new(ResolverConfig {
        debug_dirs: Vec::new(),
        ..ResolverConfig::default()
    });
    let table = ModuleTable {
        mappings: vec![Mapping::of_image(code.clone(), Rc::new(image), 0)],
    };
    resolver.insert(KEY, table);
    let sample = StackSample {
        registers: Registers {
            ip: code.start + u64_at(stack, 0) % (code.end - code.start),
            sp: STACK,
            fp: STACK + 32,
            lr: 0,
        },
        copy: bytes::Bytes::copy_from_slice(stack),
        bounded: true,
        interpreter: FrameSample::default(),
    };
    resolver.resolve(KEY, &sample);
}

/// /proc/PID/maps: its paths are the target's.
pub fn maps(bytes: &[u8]) {
    for line in String::from_utf8_lossy(bytes).lines() {
        parse_executable(line);
    }
}

/// A symbol's name.
pub fn symbol(bytes: &[u8]) {
    demangle(&String::from_utf8_lossy(bytes));
}

/// Code without unwind tables, followed to its return.
pub fn code(bytes: &[u8]) {
    let code_at = |address: u64| {
        let code = bytes.get(usize::try_from(address).ok()?..)?;
        Some(code[..code.len().min(15)].to_vec())
    };
    way_out(0, code_at, |_| false);
}
