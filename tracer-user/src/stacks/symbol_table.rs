//! The symbols of an interpreter's ELF file: where the few that discovery needs are, by name.

use super::elf::{Elf, ElfSource, u16_at, u32_at, u64_at};

const SYMBOL_BYTES: usize = 24;

pub(super) struct SymbolTable {
    /// `Elf64_Sym[]`
    symbols: Vec<u8>,
    names: Vec<u8>,
}

impl SymbolTable {
    /// What other files may link to. None where it is larger than `max_bytes`.
    pub(super) fn dynamic(elf: &Elf, source: &ElfSource, max_bytes: u64) -> Option<Self> {
        Self::read(elf, source, (".dynsym", ".dynstr"), max_bytes)
    }

    /// All symbols, which a stripped file has no more.
    pub(super) fn full(elf: &Elf, source: &ElfSource, max_bytes: u64) -> Option<Self> {
        Self::read(elf, source, (".symtab", ".strtab"), max_bytes)
    }

    fn read(
        elf: &Elf,
        source: &ElfSource,
        (symbols, names): (&str, &str),
        max_bytes: u64,
    ) -> Option<Self> {
        let read = |name| {
            let section = elf.section(name)?;
            let (offset, bytes) = (section.offset, section.size_bytes);
            source.read("symbols", offset, bytes, max_bytes).ok()
        };
        Some(Self::of(read(symbols)?, read(names)?))
    }

    pub(super) fn of(symbols: Vec<u8>, names: Vec<u8>) -> Self {
        Self { symbols, names }
    }

    /// As the file has it; none where the file only refers to the symbol.
    pub(super) fn address(&self, wanted: &str) -> Option<u64> {
        let mut symbols = self.symbols.chunks_exact(SYMBOL_BYTES);
        let symbol = symbols.find(|symbol| {
            let name = self.names.get(u32_at(symbol, 0) as usize..);
            let rest = name.and_then(|name| name.strip_prefix(wanted.as_bytes()));
            u16_at(symbol, 6) != 0 && rest.is_some_and(|rest| rest.starts_with(b"\0"))
        });
        symbol.map(|symbol| u64_at(symbol, 8))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn symbol(name: u32, section: u16, address: u64) -> Vec<u8> {
        let mut symbol = name.to_le_bytes().to_vec();
        symbol.extend([0, 0]);
        symbol.extend(section.to_le_bytes());
        symbol.extend(address.to_le_bytes());
        symbol.extend([0; 8]);
        symbol
    }

    #[test]
    fn a_symbol_is_found_by_its_whole_name_where_it_is_defined() {
        let names = b"\0globals\0executor_globals\0".to_vec();
        let symbols = [symbol(9, 0, 8), symbol(9, 3, 16), symbol(18, 3, 24)];
        let table = SymbolTable::of(symbols.concat(), names);
        assert_eq!(table.address("executor_globals"), Some(16));
        assert_eq!(table.address("globals"), Some(24));
        assert_eq!(table.address("executor"), None);
    }

    proptest! {
        #[test]
        fn any_table_has_an_answer(
            symbols in prop::collection::vec(any::<u8>(), 0..480),
            names in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = SymbolTable::of(symbols, names).address("executor_globals");
        }
    }
}
