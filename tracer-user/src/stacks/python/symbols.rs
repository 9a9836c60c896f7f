//! The symbols of an interpreter's ELF file that discovery needs.

use std::fs::File;

use super::super::elf::{Elf, ElfSource};
use super::super::symbol_table::SymbolTable;

const TABLE_MAX_BYTES: u64 = 64 << 20;

/// Addresses as the file has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        let tables = [SymbolTable::dynamic, SymbolTable::full];
        let symbols = tables
            .iter()
            .filter_map(|read| read(&elf, &source, TABLE_MAX_BYTES))
            .find_map(|table| Symbols::find(&table))?;
        let elf = elf.without_sections();
        Some(Self { elf, symbols })
    }
}

impl Symbols {
    pub(super) fn find(table: &SymbolTable) -> Option<Self> {
        let address = |wanted| table.address(wanted).filter(|address| *address != 0);
        Some(Self {
            runtime: address("_PyRuntime")?,
            code_type: address("PyCode_Type")?,
            text_type: address("PyUnicode_Type")?,
            version: table.address("Py_Version"),
        })
    }
}
