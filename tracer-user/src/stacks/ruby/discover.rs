//! Discovery: from a PID to the Ruby that it runs, by maps, ELF file and memory.

use std::fs::File;
use std::path::Path;
use std::rc::Rc;

use super::super::elf::{Elf, ElfSource};
use super::super::interpreters::FrameLayout;
use super::super::known_files::KnownFiles;
use super::super::looked::Looked;
use super::super::memory::Memory;
use super::super::modules::{Mapping, open_mapped};
use super::super::symbol_table::SymbolTable;
use super::Runtime;
use super::layout::{Layout, VERSION_BYTES};
use super::machine::{find_slot, main_thread};

const TABLE_MAX_BYTES: u64 = 64 << 20;
/// What a thread runs is another fiber at any moment.
const READS_MAX: usize = 3;

/// Addresses as the file has them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Symbols {
    /// `ruby_api_version`
    pub(super) version: u64,
    /// `ruby_current_vm_ptr`, which 3.3 keeps to itself.
    pub(super) machine: Option<u64>,
    /// Address and size of each part that can be written.
    pub(super) variables: Vec<(u64, u64)>,
}

struct RubyFile {
    elf: Elf,
    symbols: Symbols,
}

/// Remembers the symbols of the files it has seen.
#[derive(Default)]
pub(crate) struct Discovery {
    files: KnownFiles<RubyFile>,
}

impl Discovery {
    /// Whether a file of this name may be Ruby: `libruby-3.1.so.3.1`, `ruby3.1`, `ruby`.
    pub(crate) fn may_be(name: &[u8]) -> bool {
        name == b"ruby"
            || [&b"libruby"[..], b"ruby2", b"ruby3"]
                .iter()
                .any(|begin| name.starts_with(begin))
    }

    /// Looks through what a process maps of files that may be an interpreter.
    pub(crate) fn look(
        &mut self,
        pid: u32,
        process_dir: &Path,
        mappings: &[Mapping],
    ) -> Looked<(Runtime, FrameLayout)> {
        let mut looked = Looked::Nothing;
        for mapping in mappings {
            let name = mapping.file_name();
            if !Self::may_be(name.as_bytes()) {
                continue;
            }
            let found = match self.file(process_dir, mapping) {
                Some(file) => match file.elf.bias(mapping.range.start, mapping.offset) {
                    Some(bias) => find(Memory::of(pid), &file.symbols, bias, name),
                    None => continue,
                },
                None if name.starts_with("lib") => {
                    Looked::Refused(format!("{name} does not tell its version"))
                }
                // A program without the symbols is one whose library is about to be mapped.
                None => Looked::NotYet,
            };
            match (&looked, found) {
                (_, found @ Looked::Found(_)) => return found,
                (Looked::Refused(_), _) => {}
                (_, other) => looked = other,
            }
        }
        looked
    }

    fn file(&mut self, process_dir: &Path, mapping: &Mapping) -> Option<Rc<RubyFile>> {
        let file = open_mapped(process_dir, mapping).ok()?;
        self.files.get(file, read_file)
    }
}

fn read_file(file: File) -> Option<RubyFile> {
    let source = ElfSource::from_file(file).ok()?;
    let elf = Elf::parse(&source).ok()?;
    let tables = [SymbolTable::dynamic, SymbolTable::full];
    let tables: Vec<_> = tables
        .iter()
        .filter_map(|read| read(&elf, &source, TABLE_MAX_BYTES))
        .collect();
    let address = |wanted| tables.iter().find_map(|table| table.address(wanted));
    let symbols = Symbols {
        version: address("ruby_api_version")?,
        machine: address("ruby_current_vm_ptr"),
        variables: elf.variables().collect(),
    };
    Some(RubyFile {
        elf: elf.without_sections(),
        symbols,
    })
}

pub(super) fn find(
    memory: Memory,
    symbols: &Symbols,
    bias: u64,
    name: &str,
) -> Looked<(Runtime, FrameLayout)> {
    let at = |address: u64| address.wrapping_add(bias);
    let Some(version) = memory.read(at(symbols.version), VERSION_BYTES) else {
        return Looked::NotYet;
    };
    let layout = match Layout::of(&version, name) {
        Ok(layout) => layout,
        Err(cause) => return Looked::Refused(cause),
    };
    let variables = symbols.variables.iter();
    let variables: Vec<_> = variables
        .map(|(address, bytes)| (at(*address), *bytes))
        .collect();
    let pointer = symbols.machine.map(at);
    for _ in 0..READS_MAX {
        let Some(main) = main_thread(memory, &layout, pointer, &variables) else {
            return Looked::NotYet;
        };
        if let Some(slot) = find_slot(memory, &layout, main) {
            return Looked::Found((Runtime { layout }, layout.frames(slot)));
        }
    }
    Looked::Refused(format!(
        "the thread-local slot of {name} was not found, as where dlopen loaded it"
    ))
}
