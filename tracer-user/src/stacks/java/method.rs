//! A method: a pointer that a frame had, turned into class, method and file, and lines for it.
//!
//! oops/constMethod.hpp: `Method` has a part that does not change, `ConstMethod`, which the bytecode
//! follows and then its tables. Names are entries of the class's constant pool.

use std::sync::Arc;

use super::super::elf::{u16_at, u32_at, u64_at};
use super::super::known_code::{Held, KnownCode};
use super::super::python::Memory;
use super::layout::{Layout, MethodLayout, SourceFile};
use super::lines::Lines;

/// Longer names are cut: no person reads them.
const TEXT_MAX_BYTES: u16 = 1_024;
/// 64 KiB of bytecode, and its tables.
const CONSTANT_MAX_BYTES: u64 = 512 << 10;
/// HotSpot's tables of classes have one JVM to a process.
const RUNTIME: u32 = 0;
/// What `ClassFileParser::mangle_hidden_class_name` appends to a class's name.
const HIDDEN: &str = "+0x";

/// What says that this is the very method that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MethodParts {
    /// Address of the `ConstMethod`, and its bytes.
    constant: u64,
    bytes: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct MethodText {
    parts: MethodParts,
    /// Address of the first bytecode, and how many bytes there are: none in a method written in C.
    pub(super) bytecode: u64,
    pub(super) bytecode_bytes: u16,
    /// `Orders.getClient`, as Java's own traces have it.
    pub(super) name: String,
    pub(super) file: Option<String>,
    /// Java leaves it out of its traces: a lambda's glue, of a class that the JVM made up.
    pub(super) is_hidden: bool,
    pub(super) lines: Option<Lines>,
}

impl Held for MethodText {
    fn held_bytes(&self) -> usize {
        let file = self.file.as_deref().map_or(0, str::len);
        let lines = self.lines.as_ref().map_or(0, |it| it.compressed.len());
        size_of::<Self>() + self.parts.bytes.len() + self.name.len() + file + lines
    }
}

/// Remembers the methods it read. What it remembers is compared with the process each time: a class
/// may be unloaded, and another stand in its place.
#[derive(Default)]
pub(in super::super) struct MethodReader {
    known: KnownCode<MethodText>,
}

impl MethodReader {
    /// None where there is no method, as one that was unloaded.
    pub(super) fn read(
        &mut self,
        memory: Memory,
        pid: u32,
        layout: &Layout,
        method: u64,
    ) -> Option<Arc<MethodText>> {
        let parts = MethodParts::read(memory, &layout.method, method)?;
        let key = (RUNTIME, pid, method);
        if let Some(known) = self.known.get(key)
            && known.parts == parts
        {
            return Some(Arc::clone(known));
        }
        let text = Arc::new(MethodText::read(memory, layout, method, parts)?);
        self.known.insert(key, Arc::clone(&text));
        Some(text)
    }
}

impl MethodParts {
    fn read(memory: Memory, layout: &MethodLayout, method: u64) -> Option<Self> {
        let at = pointer(method)?.checked_add(layout.constant_part as u64)?;
        let constant = pointer(memory.u64_at(at)?)?;
        let bytes = memory.read(constant, layout.constant_bytes)?;
        Some(Self { constant, bytes })
    }
}

impl MethodText {
    fn read(memory: Memory, layout: &Layout, method: u64, parts: MethodParts) -> Option<Self> {
        let own = &layout.method;
        let part = |at| u16_at(&parts.bytes, at);
        let pool = Pool::read(memory, own, u64_at(&parts.bytes, own.constant_pool))?;
        let class = pool.class_name(memory, own)?;
        let name = pool.text(memory, own, part(own.name))?;
        let (class, is_hidden) = match class.split_once(HIDDEN) {
            // The rest is an address, another in each process.
            Some((class, _)) => (class.to_owned(), true),
            None => (class, false),
        };
        let file = pool.source_file(memory, own);
        let bytecode = parts.constant.checked_add(own.constant_bytes as u64)?;
        let bytecode_bytes = part(own.code_bytes);
        let lines = (part(own.flags) & own.has_lines != 0)
            .then(|| {
                let words = u32_at(&parts.bytes, own.constant_words);
                let end = parts.constant.checked_add(u64::from(words) * 8)?;
                let start = bytecode.checked_add(bytecode_bytes.into())?;
                let bytes = end.checked_sub(start);
                let bytes = bytes.filter(|bytes| *bytes <= CONSTANT_MAX_BYTES)?;
                Some(Lines {
                    compressed: memory.read(start, bytes as usize)?,
                    excluded: layout.excluded,
                })
            })
            .flatten();
        let text = Self {
            bytecode,
            bytecode_bytes,
            name: format!("{}.{name}", class.replace('/', ".")),
            file,
            is_hidden,
            lines: lines.map(Lines::without_rest),
            parts,
        };
        // Whatever was freed meanwhile was not what the frame ran.
        let again = MethodParts::read(memory, own, method);
        (again.as_ref() == Some(&text.parts)).then_some(text)
    }
}

/// A class's constant pool.
struct Pool {
    address: u64,
    header: Vec<u8>,
    class: u64,
}

impl Pool {
    /// Pool and class point to each other, or this is none.
    fn read(memory: Memory, layout: &MethodLayout, address: u64) -> Option<Self> {
        let header = memory.read(pointer(address)?, layout.pool_bytes)?;
        let class = pointer(u64_at(&header, layout.pool_class))?;
        let back = memory.u64_at(class.checked_add(layout.class_pool as u64)?)?;
        (back == address).then_some(Self {
            address,
            header,
            class,
        })
    }

    fn class_name(&self, memory: Memory, layout: &MethodLayout) -> Option<String> {
        let at = self.class.checked_add(layout.class_name as u64)?;
        symbol(memory, layout, memory.u64_at(at)?)
    }

    fn source_file(&self, memory: Memory, layout: &MethodLayout) -> Option<String> {
        let index = match layout.source_file {
            SourceFile::Pool(at) => u16_at(&self.header, at),
            SourceFile::Class(at) => {
                let field = memory.read(self.class.checked_add(at as u64)?, 2)?;
                u16_at(&field, 0)
            }
        };
        self.text(memory, layout, index)
    }

    /// Entry 0 is none.
    fn text(&self, memory: Memory, layout: &MethodLayout, index: u16) -> Option<String> {
        if index == 0 || u32::from(index) >= u32_at(&self.header, layout.pool_length) {
            return None;
        }
        let entries = self.address.checked_add(layout.pool_bytes as u64)?;
        let entry = memory.u64_at(entries.checked_add(u64::from(index) * 8)?)?;
        symbol(memory, layout, entry)
    }
}

/// A `Symbol`'s text: Java's own UTF-8, without control characters.
fn symbol(memory: Memory, layout: &MethodLayout, symbol: u64) -> Option<String> {
    let symbol = pointer(symbol)?;
    let length = memory.read(symbol.checked_add(layout.symbol_length as u64)?, 2)?;
    let bytes = u16_at(&length, 0).min(TEXT_MAX_BYTES);
    let text = memory.read(symbol.checked_add(layout.symbol_text as u64)?, bytes.into())?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let is_name = !text.is_empty() && !text.contains(char::is_control);
    is_name.then_some(text)
}

fn pointer(value: u64) -> Option<u64> {
    (value >= 4_096 && value.is_multiple_of(8)).then_some(value)
}
