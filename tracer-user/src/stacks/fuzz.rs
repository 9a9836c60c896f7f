//! The parsers of this room as a fuzzer calls them: any bytes in, no result, and never a panic.

use std::rc::Rc;
use std::sync::{LazyLock, Mutex, PoisonError};

use super::demangle::{NAME_MAX_BYTES, demangle};
use super::elf::{Elf, ElfSource, u32_at, u64_at};
use super::forward::way_out;
use super::gopclntab::GoTable;
use super::image::Image;
use super::memory::Memory;
use super::modules::{Mapping, ModuleTable, parse_executable};
use super::perfmap::Entries;
use super::php;
use super::resolver::start_ticks;
use super::symbol_table::SymbolTable;
use super::{FrameSample, ProcessKey, Registers, Resolver, ResolverConfig, StackSample};

pub use super::java::fuzz as java;
pub use super::python::fuzz as python;
pub use super::ruby::fuzz as ruby;

const KEY: ProcessKey = ProcessKey {
    pid: u32::MAX,
    start_time_ns: 0,
};
const STACK: u64 = 0x7ffc_0000_0000;
const SECTION_MAX_BYTES: u64 = 1 << 20;
const STACK_WORDS: usize = 32;
/// Of one input: else an input of many is slow, and none of them is.
const NAMES_MAX: usize = 16;

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

/// A Go program's table of functions at the end; before it where to look, where the code begins,
/// and the trees of inlined calls.
pub fn go_table(bytes: &[u8]) {
    const HEAD_BYTES: usize = 16;
    let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else {
        return;
    };
    let (address, text) = (u64_at(head, 0), u32_at(head, 8));
    let trees_bytes = u32_at(head, 12) as usize;
    let (trees, table) = rest.split_at(trees_bytes.min(rest.len()));
    if let Some(table) = GoTable::parse(table.to_vec(), u64::from(text)) {
        table.with_trees(trees.to_vec()).lookup(address);
    }
}

/// A perf map. What it says of two addresses never overlaps.
pub fn perf_map(bytes: &[u8]) {
    let mut last_end = 0;
    for (start, end, name) in Entries::parse(bytes).unwrap_or_default().iter() {
        assert!(start >= last_end && start < end && !name.is_empty());
        last_end = end;
    }
}

/// The memory around a PHP function, which it begins with; the instruction follows.
pub fn php_memory(bytes: &[u8]) {
    const INSTRUCTION: usize = 192;
    with_memory(bytes, |memory| {
        let frame = (MEMORY, u64_at(bytes, INSTRUCTION));
        php::name(std::process::id(), &[frame]);
        php::is_executor(memory, MEMORY);
    });
}

/// /proc/PID/maps, whose paths are the target's, and /proc/PID/stat, whose name is.
pub fn proc(bytes: &[u8]) {
    for line in String::from_utf8_lossy(bytes).lines() {
        parse_executable(line);
    }
    start_ticks(bytes);
}

/// A symbol table, as many symbols as the first byte says, and its names. Demangled each is still
/// short enough to be shown.
pub fn symbols(bytes: &[u8]) {
    const SYMBOL_BYTES: usize = 24;
    let Some((count, tables)) = bytes.split_first() else {
        return;
    };
    let at = usize::from(*count) * SYMBOL_BYTES;
    let (table, names) = tables.split_at(at.min(tables.len()));
    python::symbols(&SymbolTable::of(table.to_vec(), names.to_vec()));
    for name in names.split(|byte| *byte == 0).take(NAMES_MAX) {
        let name = demangle(&String::from_utf8_lossy(name));
        assert!(name.len() <= NAME_MAX_BYTES);
    }
}

/// The copy of a stack in which a Node process tells its frames.
pub fn node_stack(bytes: &[u8]) {
    super::node::fuzz(bytes);
}

/// Code without unwind tables, followed to its return.
pub fn code(bytes: &[u8]) {
    let code_at = |address: u64| {
        let code = bytes.get(usize::try_from(address).ok()?..)?;
        Some(code[..code.len().min(15)].to_vec())
    };
    way_out(0, code_at, |_| false);
}

/// Where the memory of the imagined target begins: an input's pointers can lead into itself.
pub(super) const MEMORY: u64 = 0x10_0000_0000;
const MEMORY_BYTES: usize = 64 << 10;

/// Has this process's own memory hold `bytes` at [`MEMORY`], and zeroes after them, during `read`.
pub(super) fn with_memory(bytes: &[u8], read: impl FnOnce(Memory)) {
    static FILLED: LazyLock<Mutex<&'static mut [u8]>> = LazyLock::new(|| Mutex::new(map_memory()));
    let mut filled = FILLED.lock().unwrap_or_else(PoisonError::into_inner);
    let (taken, rest) = filled.split_at_mut(bytes.len().min(MEMORY_BYTES));
    taken.copy_from_slice(&bytes[..taken.len()]);
    rest.fill(0);
    read(Memory::of(std::process::id()));
}

fn map_memory() -> &'static mut [u8] {
    // SAFETY: NOREPLACE maps where nothing is mapped, or fails; nobody unmaps it, and only the
    // caller has the slice.
    unsafe {
        let at = libc::mmap(
            MEMORY as *mut _,
            MEMORY_BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
            -1,
            0,
        );
        assert!(at as u64 == MEMORY, "failed to map memory at {MEMORY:#x}");
        std::slice::from_raw_parts_mut(at.cast(), MEMORY_BYTES)
    }
}
