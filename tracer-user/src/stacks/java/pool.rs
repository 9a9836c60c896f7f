//! A class's constant pool: names, and what its bytecode calls.

use super::super::elf::{u16_at, u32_at, u64_at};
use super::super::memory::object_at;
use super::layout::{CallEntries, MethodLayout, SourceFile};
use super::walk_memory::WalkMemory;

/// Longer names are cut: no person reads them.
const TEXT_MAX_BYTES: u16 = 1_024;

/// `ConstantPool`, and whose it is.
pub(super) struct Pool {
    address: u64,
    header: Vec<u8>,
    class: u64,
}

impl Pool {
    /// Pool and class point to each other, or this is none.
    pub(super) fn read(
        memory: WalkMemory<'_>,
        layout: &MethodLayout,
        address: u64,
    ) -> Option<Self> {
        let header = memory.read(object_at(address)?, layout.pool_bytes)?;
        let class = object_at(u64_at(&header, layout.pool_class))?;
        let back = memory.u64_at(class.checked_add(layout.class_pool as u64)?)?;
        (back == address).then_some(Self {
            address,
            header,
            class,
        })
    }

    pub(super) fn class_name(
        &self,
        memory: WalkMemory<'_>,
        layout: &MethodLayout,
    ) -> Option<String> {
        let at = self.class.checked_add(layout.class_name as u64)?;
        symbol(memory, layout, memory.u64_at(at)?)
    }

    pub(super) fn source_file(
        &self,
        memory: WalkMemory<'_>,
        layout: &MethodLayout,
    ) -> Option<String> {
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
    pub(super) fn text(
        &self,
        memory: WalkMemory<'_>,
        layout: &MethodLayout,
        index: u16,
    ) -> Option<String> {
        symbol(memory, layout, self.entry(memory, layout, index)?)
    }

    /// The method that the entry of the pool's cache calls: its name.
    pub(super) fn called(
        &self,
        memory: WalkMemory<'_>,
        layout: &MethodLayout,
        cached: u16,
    ) -> Option<String> {
        let cache = object_at(u64_at(&self.header, layout.calls.cache))?;
        let entries = match layout.calls.entries {
            CallEntries::Behind(bytes) => cache.checked_add(bytes as u64)?,
            CallEntries::Apart { array, elements } => {
                let array = memory.u64_at(cache.checked_add(array as u64)?)?;
                object_at(array)?.checked_add(elements as u64)?
            }
        };
        let at = u64::from(cached) * layout.calls.entry_bytes as u64 + layout.calls.index as u64;
        let index = memory.read(entries.checked_add(at)?, 2)?;
        // A method is its class and, above, its name and type; these are its name and its type.
        let method = self.entry(memory, layout, u16_at(&index, 0))?;
        let name = self.entry(memory, layout, (method >> 16) as u16)?;
        self.text(memory, layout, name as u16)
    }

    fn entry(&self, memory: WalkMemory<'_>, layout: &MethodLayout, index: u16) -> Option<u64> {
        if index == 0 || u32::from(index) >= u32_at(&self.header, layout.pool_length) {
            return None;
        }
        let entries = self.address.checked_add(layout.pool_bytes as u64)?;
        memory.u64_at(entries.checked_add(u64::from(index) * 8)?)
    }
}

/// A `Symbol`'s text: Java's own UTF-8, without control characters.
fn symbol(memory: WalkMemory<'_>, layout: &MethodLayout, symbol: u64) -> Option<String> {
    let symbol = object_at(symbol)?;
    let length = memory.read(symbol.checked_add(layout.symbol_length as u64)?, 2)?;
    let bytes = u16_at(&length, 0).min(TEXT_MAX_BYTES);
    let text = memory.read(symbol.checked_add(layout.symbol_text as u64)?, bytes.into())?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let is_name = !text.is_empty() && !text.contains(char::is_control);
    is_name.then_some(text)
}
