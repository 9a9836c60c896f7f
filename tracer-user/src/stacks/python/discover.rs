//! Discovery: from a PID to the CPython that it runs, by maps, ELF file and memory.

use std::path::Path;
use std::rc::Rc;

use super::super::interpreters::FrameLayout;
use super::super::known_files::KnownFiles;
use super::super::looked::Looked;
use super::super::memory::Memory;
use super::super::modules::{Mapping, open_mapped};
use super::Runtime;
use super::code::CodeMembers;
use super::layout::{Layout, RUNTIME_HEAD_BYTES, Version};
use super::symbols::{SymbolFile, Symbols};
use super::thread_state::find_slot;

/// Remembers the symbols of the files it has seen.
#[derive(Default)]
pub(crate) struct Discovery {
    files: KnownFiles<SymbolFile>,
}

impl Discovery {
    /// Whether a file of this name may be CPython.
    pub(crate) fn may_be(name: &[u8]) -> bool {
        name.starts_with(b"libpython3.") || name.starts_with(b"python3.")
    }

    /// Looks through what a process maps of files that may be an interpreter.
    pub(crate) fn look(
        &mut self,
        pid: u32,
        process_dir: &Path,
        mappings: &[Mapping],
    ) -> Looked<(Runtime, FrameLayout)> {
        let mut mappings: Vec<_> = mappings
            .iter()
            .filter(|it| Self::may_be(it.file_name().as_bytes()))
            .collect();
        // Libraries first: a program that links one only starts it.
        mappings.sort_by_key(|it| !it.file_name().starts_with("lib"));
        let mut looked = Looked::Nothing;
        for mapping in mappings {
            // A program without the symbols is one whose library is about to be mapped.
            looked = Looked::NotYet;
            let Some(file) = self.file(process_dir, mapping) else {
                continue;
            };
            let Some(bias) = file.elf.bias(mapping.range.start, mapping.offset) else {
                continue;
            };
            let name = mapping.file_name();
            match find(Memory::of(pid), &file.symbols, bias, name) {
                Looked::NotYet => {}
                found => return found,
            }
        }
        looked
    }

    fn file(&mut self, process_dir: &Path, mapping: &Mapping) -> Option<Rc<SymbolFile>> {
        let file = open_mapped(process_dir, mapping).ok()?;
        self.files.get(file, SymbolFile::read)
    }
}

pub(super) fn find(
    memory: Memory,
    symbols: &Symbols,
    bias: u64,
    name: &str,
) -> Looked<(Runtime, FrameLayout)> {
    let at = |address: u64| address.wrapping_add(bias);
    let version = match symbols.version {
        Some(version) => memory.u64_at(at(version)).and_then(Version::from_hex),
        None => Version::from_file_name(name),
    };
    let Some(version) = version else {
        return Looked::Refused(format!("{name} does not tell its version"));
    };
    let Some(head) = memory.read(at(symbols.runtime), RUNTIME_HEAD_BYTES) else {
        return Looked::NotYet;
    };
    let layout = match Layout::of(version, &head) {
        Ok(layout) => layout,
        Err(cause) => return Looked::Refused(cause),
    };
    let code_type = at(symbols.code_type);
    // Types are made ready when the interpreter starts; so are the states of its threads.
    let Some(members) = CodeMembers::read(memory, code_type, version) else {
        return Looked::NotYet;
    };
    let Some(slot) = find_slot(memory, at(symbols.runtime), &layout.states) else {
        return Looked::NotYet;
    };
    let runtime = Runtime {
        version,
        code_type,
        text_type: at(symbols.text_type),
        members,
    };
    Looked::Found((runtime, layout.frames(slot)))
}
