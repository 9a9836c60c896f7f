//! Code objects: a pointer that the kernel side saw, turned into function, file and line.

use std::sync::Arc;

use super::super::elf::{u32_at, u64_at};
use super::super::known_code::{CodeKey, Held, KnownCode};
use super::super::memory::Memory;
use super::super::{Frame, FrameKind};
use super::Runtime;
use super::layout::Version;
use super::lines::line_at;
use super::text::{self, TextHeader};

/// `PyTypeObject`: `tp_basicsize` and `tp_members`, at the same place since 3.4.
const TYPE_BASIC_SIZE: u64 = 32;
const TYPE_MEMBERS: u64 = 240;
const MEMBER_BYTES: usize = 40;
const MEMBERS_MAX: usize = 32;
const CODE_MAX_BYTES: u64 = 512;
const TABLE_MAX_BYTES: u64 = 256 << 10;
/// `PyBytesObject`: size, hash, bytes.
const BYTES_SIZE: usize = 16;
const BYTES_DATA: u64 = 32;

/// Where a code object keeps what names it: CPython itself says so, for `co_*` to be readable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CodeMembers {
    name: u64,
    file: u64,
    first_line: u64,
    table: u64,
    /// From 3.11 on the instructions stand at the end of the code object.
    instructions: u64,
}

impl CodeMembers {
    pub(super) fn read(memory: Memory, code_type: u64, version: Version) -> Option<Self> {
        let mut member = memory.u64_at(code_type.checked_add(TYPE_MEMBERS)?)?;
        let mut found = Self {
            instructions: memory.u64_at(code_type.checked_add(TYPE_BASIC_SIZE)?)?,
            ..Self::default()
        };
        let mut plain_name = 0;
        for _ in 0..MEMBERS_MAX {
            let raw = memory.read(member, MEMBER_BYTES)?;
            let name_at = u64_at(&raw, 0);
            if name_at == 0 {
                break;
            }
            let offset = u64_at(&raw, 16);
            let name = memory.read(name_at, 16).unwrap_or_default();
            match name.split(|byte| *byte == 0).next().unwrap_or_default() {
                b"co_name" => plain_name = offset,
                b"co_qualname" => found.name = offset,
                b"co_filename" => found.file = offset,
                b"co_firstlineno" => found.first_line = offset,
                b"co_lnotab" if version.minor < 10 => found.table = offset,
                b"co_linetable" if version.minor >= 10 => found.table = offset,
                _ => {}
            }
            member = member.checked_add(MEMBER_BYTES as u64)?;
        }
        if found.name == 0 {
            found.name = plain_name;
        }
        let offsets = [found.name, found.file, found.first_line, found.table];
        offsets
            .iter()
            .all(|offset| (16..CODE_MAX_BYTES - 8).contains(offset))
            .then_some(found)
    }

    fn head_bytes(&self) -> usize {
        let last = self
            .name
            .max(self.file)
            .max(self.first_line)
            .max(self.table);
        last as usize + 8
    }
}

/// The part of a code object that says which code it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CodeHead {
    name: u64,
    file: u64,
    table: u64,
    first_line: i32,
}

/// The headers of the objects that a head points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CodeParts {
    head: CodeHead,
    name: TextHeader,
    file: TextHeader,
    table_bytes: u64,
    table_hash: u64,
}

#[derive(Debug)]
struct CodeText {
    parts: CodeParts,
    name: String,
    file: String,
    table: Vec<u8>,
}

/// Names code objects and remembers what it read. What it remembers is checked against the
/// process each time: a code object may be freed, and another stand in its place.
#[derive(Default)]
pub(crate) struct CodeReader {
    known: KnownCode<CodeText>,
}

impl Held for CodeText {
    fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.file.len() + self.table.len()
    }
}

impl CodeReader {
    /// A frame without function is one whose code object could not be read.
    pub(crate) fn name(
        &mut self,
        runtime: &Runtime,
        runtime_number: u32,
        pid: u32,
        frames: &[(u64, u64)],
    ) -> Vec<Frame> {
        let memory = Memory::of(pid);
        let mut named = Vec::with_capacity(frames.len());
        let parts = read_parts(memory, runtime, frames);
        for (&(code, instruction), parts) in frames.iter().zip(parts) {
            let key = (runtime_number, pid, code);
            let text = parts.and_then(|parts| match self.known.get(key) {
                Some(text) if text.parts == parts => Some(Arc::clone(text)),
                _ => self.read(memory, runtime, key, parts),
            });
            let Some(text) = text else {
                named.push(Frame::unnamed(FrameKind::Python, None));
                continue;
            };
            if text.name == "<interpreter trampoline>" {
                continue;
            }
            let offset_bytes = match runtime.version.minor {
                ..=9 => i64::from(instruction as i32),
                10 => i64::from(instruction as i32) * 2,
                _ => instruction
                    .wrapping_sub(code)
                    .wrapping_sub(runtime.members.instructions) as i64,
            };
            let first_line = text.parts.head.first_line;
            let line = line_at(runtime.version, &text.table, first_line, offset_bytes);
            named.push(Frame::of_code(
                FrameKind::Python,
                Some(&text.name),
                Some(&text.file),
                line,
            ));
        }
        named
    }

    fn read(
        &mut self,
        memory: Memory,
        runtime: &Runtime,
        key: CodeKey,
        parts: CodeParts,
    ) -> Option<Arc<CodeText>> {
        let text = Arc::new(read_text(memory, runtime, key.2, parts)?);
        self.known.insert(key, Arc::clone(&text));
        Some(text)
    }
}

/// Reads of one code object until it holds still.
const READS_MAX: usize = 4;

fn read_text(
    memory: Memory,
    runtime: &Runtime,
    code: u64,
    mut parts: CodeParts,
) -> Option<CodeText> {
    for _ in 0..READS_MAX {
        let head = parts.head;
        if parts.table_bytes > TABLE_MAX_BYTES {
            return None;
        }
        let text = CodeText {
            parts,
            name: parts.name.read(memory, head.name, runtime)?,
            file: parts.file.read(memory, head.file, runtime)?,
            table: memory.read(
                head.table.checked_add(BYTES_DATA)?,
                parts.table_bytes as usize,
            )?,
        };
        let again = read_parts(memory, runtime, &[(code, 0)]);
        match again.first().copied().flatten() {
            Some(again) if again == parts => return Some(text),
            // Texts compute their hash when it is first asked for, as a traceback does: the code
            // is the same, and is read once more.
            Some(again) if again.head == head => parts = again,
            // Whatever was freed meanwhile was not what the frame ran.
            _ => return None,
        }
    }
    None
}

fn read_parts(memory: Memory, runtime: &Runtime, frames: &[(u64, u64)]) -> Vec<Option<CodeParts>> {
    let codes: Vec<u64> = frames.iter().map(|(code, _)| *code).collect();
    let heads: Vec<Option<CodeHead>> = memory
        .read_each(&codes, runtime.members.head_bytes())
        .into_iter()
        .map(|bytes| CodeHead::parse(&bytes?, runtime))
        .collect();
    let places: Vec<u64> = heads
        .iter()
        .flatten()
        .flat_map(|head| [head.name, head.file, head.table])
        .collect();
    let headers = memory.read_each(&places, text::HEADER_BYTES);
    let mut headers = headers.chunks_exact(3);
    heads
        .into_iter()
        .map(|head| {
            let head = head?;
            let [Some(name), Some(file), Some(table)] = headers.next()? else {
                return None;
            };
            Some(CodeParts {
                head,
                name: TextHeader::parse(name),
                file: TextHeader::parse(file),
                table_bytes: u64_at(table, BYTES_SIZE),
                table_hash: u64_at(table, BYTES_SIZE + 8),
            })
        })
        .collect()
}

impl CodeHead {
    fn parse(bytes: &[u8], runtime: &Runtime) -> Option<Self> {
        let members = &runtime.members;
        (u64_at(bytes, 8) == runtime.code_type).then(|| Self {
            name: u64_at(bytes, members.name as usize),
            file: u64_at(bytes, members.file as usize),
            table: u64_at(bytes, members.table as usize),
            first_line: u32_at(bytes, members.first_line as usize) as i32,
        })
    }
}
