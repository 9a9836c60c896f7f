//! A method: a pointer that a frame had, turned into class, method and file, and lines for it.
//!
//! oops/constMethod.hpp: `Method` has a part that does not change, `ConstMethod`, which the bytecode
//! follows and then its tables. Names are entries of the class's constant pool.

use std::sync::Arc;

use super::super::elf::{u16_at, u32_at, u64_at};
use super::super::known_code::{Held, KnownCode};
use super::super::memory::object_at;
use super::layout::{Layout, MethodLayout};
use super::lines::Lines;
use super::pool::Pool;
use super::walk_memory::WalkMemory;

/// 64 KiB of bytecode, and its tables.
const CONSTANT_MAX_BYTES: u64 = 512 << 10;
/// HotSpot's tables of classes have one JVM to a process.
const RUNTIME: u32 = 0;
/// What `ClassFileParser::mangle_hidden_class_name` appends to a class's name.
const HIDDEN: &str = "+0x";

/// What says that this is the very method that was read: another class may come to have the same
/// memory, and a method of the same size. A new version of its class has the same names, too, and
/// other lines.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    parts: MethodParts,
    names: Names,
    lines: Option<Lines>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct MethodParts {
    /// Address of the `ConstMethod`, and its bytes.
    constant: u64,
    bytes: Vec<u8>,
}

/// What it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Names {
    class: String,
    method: String,
}

#[derive(Debug)]
pub(super) struct MethodText {
    identity: Identity,
    /// Address of the first bytecode, and how many bytes there are: none in a method written in C.
    pub(super) bytecode: u64,
    pub(super) bytecode_bytes: u16,
    /// Address of its class's constant pool.
    pub(super) pool: u64,
    /// `Orders.getClient`, as Java's own traces have it.
    pub(super) name: String,
    pub(super) file: Option<String>,
    /// Java leaves it out of its traces: a lambda's glue, of a class that the JVM made up.
    pub(super) is_hidden: bool,
}

impl Held for MethodText {
    fn held_bytes(&self) -> usize {
        let Identity {
            parts,
            names,
            lines,
        } = &self.identity;
        let texts = [&names.class, &names.method, &self.name];
        let texts: usize = texts.into_iter().chain(&self.file).map(String::len).sum();
        let lines = lines.as_ref().map_or(0, |it| it.compressed.len());
        size_of::<Self>() + parts.bytes.len() + texts + lines
    }
}

/// Remembers the methods it read of one process. What it remembers is compared with the process each
/// time: a class may be unloaded, and another stand in its place.
#[derive(Default)]
pub(in super::super) struct MethodReader {
    known: KnownCode<MethodText>,
}

impl MethodReader {
    pub(in super::super) fn held_bytes(&self) -> usize {
        self.known.held_bytes()
    }

    /// None where there is no method, as one that was unloaded.
    pub(super) fn read(
        &mut self,
        memory: WalkMemory<'_>,
        pid: u32,
        layout: &Layout,
        method: u64,
    ) -> Option<Arc<MethodText>> {
        let parts = MethodParts::read(memory, &layout.method, method)?;
        let pool = Pool::read(memory, &layout.method, parts.pool(&layout.method))?;
        let identity = Identity {
            names: Names::read(memory, &layout.method, &pool, &parts)?,
            lines: parts.lines(memory, layout),
            parts,
        };
        let key = (RUNTIME, pid, method);
        if let Some(known) = self.known.get(key)
            && known.identity == identity
        {
            return Some(Arc::clone(known));
        }
        let text = MethodText::read(memory, &layout.method, &pool, method, identity)?;
        let text = Arc::new(text);
        self.known.insert(key, Arc::clone(&text));
        Some(text)
    }
}

impl MethodParts {
    fn read(memory: WalkMemory<'_>, layout: &MethodLayout, method: u64) -> Option<Self> {
        let at = object_at(method)?.checked_add(layout.constant_part as u64)?;
        let constant = object_at(memory.u64_at(at)?)?;
        let bytes = memory.read(constant, layout.constant_bytes)?;
        Some(Self { constant, bytes })
    }

    /// Address of its class's constant pool.
    fn pool(&self, layout: &MethodLayout) -> u64 {
        u64_at(&self.bytes, layout.constant_pool)
    }

    /// Address of the first bytecode, and how many bytes there are.
    fn bytecode(&self, layout: &MethodLayout) -> Option<(u64, u16)> {
        let at = self.constant.checked_add(layout.constant_bytes as u64)?;
        Some((at, u16_at(&self.bytes, layout.code_bytes)))
    }

    fn lines(&self, memory: WalkMemory<'_>, layout: &Layout) -> Option<Lines> {
        let own = &layout.method;
        if u16_at(&self.bytes, own.flags) & own.has_lines == 0 {
            return None;
        }
        let words = u32_at(&self.bytes, own.constant_words);
        let end = self.constant.checked_add(u64::from(words) * 8)?;
        let (bytecode, bytecode_bytes) = self.bytecode(own)?;
        let start = bytecode.checked_add(bytecode_bytes.into())?;
        let bytes = end.checked_sub(start);
        let bytes = bytes.filter(|bytes| *bytes <= CONSTANT_MAX_BYTES)?;
        Lines {
            compressed: memory.read(start, bytes as usize)?,
            excluded: layout.excluded,
        }
        .without_rest()
    }
}

impl Names {
    fn read(
        memory: WalkMemory<'_>,
        layout: &MethodLayout,
        pool: &Pool,
        parts: &MethodParts,
    ) -> Option<Self> {
        Some(Self {
            class: pool.class_name(memory, layout)?,
            method: pool.text(memory, layout, u16_at(&parts.bytes, layout.name))?,
        })
    }

    /// The class as its source has it, and whether the JVM made it up.
    fn class(&self) -> (&str, bool) {
        // The rest is an address, another in each process.
        match self.class.rsplit_once(HIDDEN) {
            Some((class, address)) if address.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
                (class, true)
            }
            _ => (&self.class, false),
        }
    }
}

impl MethodText {
    /// Without its class.
    pub(super) fn simple_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    pub(super) fn lines(&self) -> Option<&Lines> {
        self.identity.lines.as_ref()
    }

    fn read(
        memory: WalkMemory<'_>,
        layout: &MethodLayout,
        pool: &Pool,
        method: u64,
        identity: Identity,
    ) -> Option<Self> {
        let Identity { parts, names, .. } = &identity;
        let (class, is_hidden) = names.class();
        let (bytecode, bytecode_bytes) = parts.bytecode(layout)?;
        let text = Self {
            bytecode,
            bytecode_bytes,
            pool: parts.pool(layout),
            name: format!("{}.{}", class.replace('/', "."), names.method),
            file: pool.source_file(memory, layout),
            is_hidden,
            identity,
        };
        // Whatever was freed meanwhile was not what the frame ran.
        let again = MethodParts::read(memory, layout, method);
        (again.as_ref() == Some(&text.identity.parts)).then_some(text)
    }
}
