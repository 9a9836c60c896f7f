//! What libjvm.so says of itself: the tables of runtime/vmStructs.cpp, read where they are.
//!
//! They are read from each process's own memory: its relocations have made them pointers there, and
//! what one process writes into its copy deceives nobody about another.

use std::collections::{HashMap, HashSet};
use std::fs::File;

use super::super::elf::{Elf, ElfSource, i32_at, u64_at};
use super::super::memory::Memory;
use super::super::symbol_table::SymbolTable;

const SYMBOLS_MAX_BYTES: u64 = 16 << 20;
/// JDK 17 has 789 fields, 1 000 constants, entries of 48 bytes, and names of up to 61.
const ENTRIES_MAX: usize = 8_192;
const ENTRIES_AT_ONCE: usize = 512;
const ENTRY_MAX_BYTES: u64 = 128;
const NAME_BYTES: usize = 64;

/// The variables that say where the tables are and how their entries look.
const VARIABLES: [&str; 15] = [
    "gHotSpotVMStructs",
    "gHotSpotVMStructEntryArrayStride",
    "gHotSpotVMStructEntryTypeNameOffset",
    "gHotSpotVMStructEntryFieldNameOffset",
    "gHotSpotVMStructEntryIsStaticOffset",
    "gHotSpotVMStructEntryOffsetOffset",
    "gHotSpotVMStructEntryAddressOffset",
    "gHotSpotVMTypes",
    "gHotSpotVMTypeEntryArrayStride",
    "gHotSpotVMTypeEntryTypeNameOffset",
    "gHotSpotVMTypeEntrySizeOffset",
    "gHotSpotVMIntConstants",
    "gHotSpotVMIntConstantEntryArrayStride",
    "gHotSpotVMIntConstantEntryNameOffset",
    "gHotSpotVMIntConstantEntryValueOffset",
];

/// Addresses of [`VARIABLES`] as the file has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbols(pub(super) [u64; VARIABLES.len()]);

impl Symbols {
    /// `None` if the file does not export them.
    pub(super) fn read(file: File) -> Option<Self> {
        let source = ElfSource::from_file(file).ok()?;
        let elf = Elf::parse(&source).ok()?;
        let table = SymbolTable::dynamic(&elf, &source, SYMBOLS_MAX_BYTES)?;
        let mut addresses = [0; VARIABLES.len()];
        for (address, wanted) in addresses.iter_mut().zip(VARIABLES) {
            *address = table.address(wanted)?;
        }
        Some(Self(addresses))
    }
}

/// Where a field is: from the beginning of its struct, or a variable's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Offset(u64),
    Address(u64),
}

/// The entries of the wanted structs.
#[derive(Debug, Default)]
pub(super) struct Tables {
    fields: HashMap<(String, String), Place>,
    sizes: HashMap<String, u64>,
    constants: HashMap<String, i32>,
}

/// An entry that is not there, by its name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("libjvm.so does not tell {0}")]
pub(super) struct Untold(pub(super) String);

/// One table in memory: its entries up to the first without name.
struct Entries {
    entries: Vec<Vec<u8>>,
    name_offset: usize,
}

impl Tables {
    /// `None` where the memory cannot be read as tables. `bias` leads from the file's addresses to
    /// the process's.
    pub(super) fn read(
        memory: Memory,
        symbols: &Symbols,
        bias: u64,
        wanted: &[&str],
    ) -> Option<Self> {
        let places = symbols.0.map(|address| address.wrapping_add(bias));
        let words = memory.read_each(&places, 8).into_iter();
        let words: Vec<u64> = words
            .map(|word| word.map(|word| u64_at(&word, 0)))
            .collect::<Option<_>>()?;
        let [
            fields_at,
            field_bytes,
            type_name,
            field_name,
            is_static,
            offset,
            address,
            types_at,
            type_bytes,
            name_of_type,
            size,
            constants_at,
            constant_bytes,
            name_of_constant,
            value,
        ]: [u64; VARIABLES.len()] = words.try_into().ok()?;
        // What lies outside of an entry reads as zeroes.
        let [field_name, is_static, offset, address, size, value] =
            [field_name, is_static, offset, address, size, value].map(|at| at as usize);
        let mut tables = Self::default();

        let fields = Entries::read(memory, fields_at, field_bytes, type_name)?;
        let names = fields.names(memory);
        let fields = fields.entries.iter().zip(names);
        let fields: Vec<_> = fields
            .filter_map(|(field, name)| Some((field, name.filter(is_in(wanted))?)))
            .collect();
        let field_names: Vec<u64> = fields.iter().map(|it| u64_at(it.0, field_name)).collect();
        let field_names = read_names(memory, &field_names);
        for ((field, of), name) in fields.into_iter().zip(field_names) {
            let place = match i32_at(field, is_static) {
                0 => Place::Offset(u64_at(field, offset)),
                _ => Place::Address(u64_at(field, address)),
            };
            tables.fields.insert((of, name?), place);
        }

        let types = Entries::read(memory, types_at, type_bytes, name_of_type)?;
        let sizes = types.names(memory).into_iter().zip(&types.entries);
        let sizes = sizes
            .filter_map(|(name, entry)| Some((name.filter(is_in(wanted))?, u64_at(entry, size))));
        tables.sizes = sizes.collect();

        let constants = Entries::read(memory, constants_at, constant_bytes, name_of_constant)?;
        let values = constants.names(memory).into_iter().zip(&constants.entries);
        let values = values.filter_map(|(name, entry)| Some((name?, i32_at(entry, value))));
        let of_wanted = |name: &str| wanted.iter().any(|it| name.split("::").next() == Some(it));
        tables.constants = values.filter(|(name, _)| of_wanted(name)).collect();
        Some(tables)
    }

    /// Of a field, from the beginning of its struct.
    pub(super) fn offset(&self, of: &str, field: &str) -> Result<u64, Untold> {
        match self.field(of, field) {
            Some(Place::Offset(offset)) => Ok(offset),
            _ => Err(untold(of, field)),
        }
    }

    /// Of a variable, in the process.
    pub(super) fn address(&self, of: &str, variable: &str) -> Result<u64, Untold> {
        match self.field(of, variable) {
            Some(Place::Address(address)) => Ok(address),
            _ => Err(untold(of, variable)),
        }
    }

    /// In bytes.
    pub(super) fn size(&self, of: &str) -> Result<u64, Untold> {
        let size = self.sizes.get(of).copied();
        size.ok_or_else(|| Untold(format!("the size of {of}")))
    }

    pub(super) fn constant(&self, of: &str, name: &str) -> Result<i32, Untold> {
        let value = self.constants.get(&format!("{of}::{name}")).copied();
        value.ok_or_else(|| untold(of, name))
    }

    fn field(&self, of: &str, field: &str) -> Option<Place> {
        let key = (of.to_owned(), field.to_owned());
        self.fields.get(&key).copied()
    }
}

fn is_in<'wanted>(wanted: &'wanted [&str]) -> impl Fn(&String) -> bool + 'wanted {
    |name| wanted.contains(&name.as_str())
}

fn untold(of: &str, name: &str) -> Untold {
    Untold(format!("{of}::{name}"))
}

impl Entries {
    fn read(memory: Memory, at: u64, entry_bytes: u64, name_offset: u64) -> Option<Self> {
        if at == 0 || !(8..=ENTRY_MAX_BYTES).contains(&entry_bytes) {
            return None;
        }
        let name_offset = usize::try_from(name_offset).ok()?;
        let mut entries = Vec::new();
        while entries.len() < ENTRIES_MAX {
            let first = entries.len();
            let at = |index| (index as u64).checked_mul(entry_bytes)?.checked_add(at);
            let places: Option<Vec<u64>> = (first..first + ENTRIES_AT_ONCE).map(at).collect();
            for entry in memory.read_each(&places?, entry_bytes as usize) {
                let entry = entry?;
                if u64_at(&entry, name_offset) == 0 {
                    return Some(Self {
                        entries,
                        name_offset,
                    });
                }
                entries.push(entry);
            }
        }
        None
    }

    fn names(&self, memory: Memory) -> Vec<Option<String>> {
        let names = self.entries.iter();
        let names: Vec<u64> = names.map(|it| u64_at(it, self.name_offset)).collect();
        read_names(memory, &names)
    }
}

/// The text at each address, read once where it stands for several.
fn read_names(memory: Memory, addresses: &[u64]) -> Vec<Option<String>> {
    let different: HashSet<u64> = addresses.iter().copied().collect();
    let different: Vec<u64> = different.into_iter().collect();
    let mut names = HashMap::new();
    for some in different.chunks(ENTRIES_AT_ONCE) {
        let texts = memory.read_each(some, NAME_BYTES);
        names.extend(some.iter().zip(texts).filter_map(|(address, text)| {
            let text = text?;
            let end = text.iter().position(|byte| *byte == 0)?;
            Some((*address, String::from_utf8(text[..end].to_vec()).ok()?))
        }));
    }
    let names = addresses.iter().map(|address| names.get(address).cloned());
    names.collect()
}
