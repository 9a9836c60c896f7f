//! The symbols of an interpreter's ELF file that discovery needs.

use std::fs::File;

use super::super::elf::{Elf, ElfSource, u16_at, u32_at, u64_at};

const SYMBOL_BYTES: usize = 24;
const TABLE_MAX_BYTES: u64 = 64 << 20;

/// Addresses as the file has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Symbols {
    pub(super) runtime: u64,
    pub(super) code_type: u64,
    pub(super) text_type: u64,
    /// From 3.11 on.
    pub(super) version: Option<u64>,
}

/// The ELF file's headers and what was found in it.
pub(super) struct SymbolFile {
    pub(super) elf: Elf,
    pub(super) symbols: Symbols,
}

impl SymbolFile {
    pub(super) fn read(file: File) -> Option<Self> {
        let source = ElfSource::from_file(file).ok()?;
        let elf = Elf::parse(&source).ok()?;
        let tables = [(".dynsym", ".dynstr"), (".symtab", ".strtab")];
        let symbols = tables
            .iter()
            .find_map(|(table, names)| find(&elf, &source, table, names))?;
        let elf = elf.without_sections();
        Some(Self { elf, symbols })
    }
}

fn find(elf: &Elf, source: &ElfSource, table: &str, names: &str) -> Option<Symbols> {
    let read = |name| {
        let section = elf.section(name)?;
        let (offset, bytes) = (section.offset, section.size_bytes);
        source.read("symbols", offset, bytes, TABLE_MAX_BYTES).ok()
    };
    search(&read(table)?, &read(names)?)
}

pub(super) fn search(table: &[u8], names: &[u8]) -> Option<Symbols> {
    let mut found = Symbols::default();
    for symbol in table.chunks_exact(SYMBOL_BYTES) {
        let (section, address) = (u16_at(symbol, 6), u64_at(symbol, 8));
        let name = names.get(u32_at(symbol, 0) as usize..).unwrap_or_default();
        // Undefined symbols have no address here.
        if section == 0 || !(name.starts_with(b"Py") || name.starts_with(b"_PyR")) {
            continue;
        }
        match name
            .iter()
            .position(|byte| *byte == 0)
            .map(|end| &name[..end])
        {
            Some(b"_PyRuntime") => found.runtime = address,
            Some(b"PyCode_Type") => found.code_type = address,
            Some(b"PyUnicode_Type") => found.text_type = address,
            Some(b"Py_Version") => found.version = Some(address),
            _ => {}
        }
    }
    (found.runtime != 0 && found.code_type != 0 && found.text_type != 0).then_some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_tables_give_symbols_or_none(
            table in prop::collection::vec(any::<u8>(), 0..480),
            names in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = search(&table, &names);
        }
    }
}
