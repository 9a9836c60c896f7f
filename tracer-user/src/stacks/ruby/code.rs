//! Instruction sequences: a pointer that the kernel side saw, turned into method, file and line.

use std::sync::Arc;

use super::super::elf::{u32_at, u64_at};
use super::super::known_code::{Held, KnownCode};
use super::super::memory::{Memory, object_at};
use super::super::{Frame, FrameKind};
use super::Runtime;
use super::layout::Layout;
use super::lines::{Lines, index_bytes};
use super::text::{HEADER_BYTES, TextHeader, paths};

/// `rb_iseq_t`, vm_core.h: an object of type `T_IMEMO`, `imemo_iseq`, and where its body is.
const CODE_BYTES: usize = 24;
const CODE_TYPE_MASK: u64 = 0xf01f;
const CODE_TYPE: u64 = 0x701a;
const CODE_BODY: usize = 16;
/// `rb_iseq_constant_body`: `iseq_size`, `iseq_encoded`, `location.pathobj`, `location.label`.
const BODY_BYTES: usize = 152;
const BODY_WORDS: usize = 4;
const BODY_INSTRUCTIONS: usize = 8;
const BODY_PATH: usize = 64;
const BODY_LABEL: usize = 80;
/// `insns_info`: `body`, `size`, `succ_index_table`.
const LINES_SIZE: usize = 16;
const LINES_INDEX: usize = 24;
/// Code with larger tables has names and no lines.
const TABLE_MAX_BYTES: u64 = 256 << 10;

/// The part of a body that says which code it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Body {
    address: u64,
    /// Of instructions, in words.
    words: u32,
    instructions: u64,
    path: u64,
    label: u64,
    lines: u64,
    lines_count: u32,
    lines_index: u64,
}

/// A body, and the headers of the texts that it points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CodeParts {
    body: Body,
    label: TextHeader,
    paths: [Option<TextHeader>; 2],
}

#[derive(Debug)]
struct CodeText {
    parts: CodeParts,
    name: String,
    file: Option<String>,
    lines: Lines,
}

impl Held for CodeText {
    fn held_bytes(&self) -> usize {
        let file = self.file.as_deref().map_or(0, str::len);
        let lines = self.lines.index.len() + self.lines.entries.len();
        size_of::<Self>() + self.name.len() + file + lines
    }
}

/// Names instruction sequences and remembers what it read. What it remembers is checked against the
/// process each time: a sequence may be freed, and another stand in its place.
#[derive(Default)]
pub(crate) struct CodeReader {
    known: KnownCode<CodeText>,
}

impl CodeReader {
    /// A frame without function is one whose code could not be read.
    pub(crate) fn name(
        &mut self,
        runtime: &Runtime,
        runtime_number: u32,
        pid: u32,
        frames: &[(u64, u64)],
    ) -> Vec<Frame> {
        let memory = Memory::of(pid);
        // Blocks that are written in C have a struct of theirs there, and run no instruction.
        let frames = frames.iter().filter(|(_, pc)| *pc != 0);
        let (codes, instructions): (Vec<u64>, Vec<u64>) = frames.copied().unzip();
        let parts = read_parts(memory, &runtime.layout, &codes);
        let frames = codes.into_iter().zip(instructions).zip(parts);
        let named = frames.filter_map(|((code, pc), parts)| {
            // The machine's own frame below all others has run no instruction either.
            if parts.is_some_and(|parts| parts.body.instructions == pc) {
                return None;
            }
            let key = (runtime_number, pid, code);
            let text = parts.and_then(|parts| match self.known.get(key) {
                Some(text) if text.parts == parts => Some(Arc::clone(text)),
                _ => {
                    let text = Arc::new(read_text(memory, &runtime.layout, code, parts)?);
                    self.known.insert(key, Arc::clone(&text));
                    Some(text)
                }
            });
            Some(text.map_or_else(
                || Frame::unnamed(FrameKind::Ruby, None),
                |text| text.frame(pc),
            ))
        });
        named.collect()
    }
}

impl CodeText {
    fn frame(&self, pc: u64) -> Frame {
        let body = &self.parts.body;
        let position = pc
            .checked_sub(body.instructions)
            .filter(|distance| distance.is_multiple_of(8))
            .map(|distance| distance / 8)
            .filter(|position| *position <= u64::from(body.words));
        // The frame has the instruction that comes next.
        let line = position.and_then(|next| self.lines.line_at(next.saturating_sub(1)));
        let line = line.filter(|_| self.file.is_some());
        Frame::of_code(
            FrameKind::Ruby,
            Some(&self.name),
            self.file.as_deref(),
            line,
        )
    }
}

fn read_text(memory: Memory, layout: &Layout, code: u64, parts: CodeParts) -> Option<CodeText> {
    let text = CodeText {
        name: parts.label.read(memory)?,
        file: read_file(memory, &parts.paths),
        lines: read_lines(memory, layout, &parts.body).unwrap_or_default(),
        parts,
    };
    // Whatever was freed meanwhile was not what the frame ran.
    let again = read_parts(memory, layout, &[code]);
    (again.first() == Some(&Some(parts))).then_some(text)
}

/// The path that the program was told, or the one that does not depend on where it stands.
fn read_file(memory: Memory, paths: &[Option<TextHeader>; 2]) -> Option<String> {
    let [told, real] = paths.map(|path| path?.read(memory));
    match (told, real) {
        (Some(told), Some(real)) if !told.starts_with('/') => Some(real),
        (told, real) => told.or(real),
    }
}

fn read_lines(memory: Memory, layout: &Layout, body: &Body) -> Option<Lines> {
    let read = |address, bytes: u64| {
        let is_small = bytes <= TABLE_MAX_BYTES;
        memory.read(address, usize::try_from(bytes).ok().filter(|_| is_small)?)
    };
    let entries_bytes = u64::from(body.lines_count) * layout.line_bytes as u64;
    Some(Lines {
        index: match body.lines_count {
            ..=1 => Vec::new(),
            _ => read(body.lines_index, index_bytes(body.words))?,
        },
        entries: read(body.lines, entries_bytes)?,
        entry_bytes: layout.line_bytes,
    })
}

/// One round of reads a kind of object, however many frames there are.
fn read_parts(memory: Memory, layout: &Layout, codes: &[u64]) -> Vec<Option<CodeParts>> {
    let codes: Vec<Option<u64>> = codes.iter().map(|code| object_at(*code)).collect();
    let body_at = |code: Vec<u8>| {
        let is_code = u64_at(&code, 0) & CODE_TYPE_MASK == CODE_TYPE;
        object_at(u64_at(&code, CODE_BODY)).filter(|_| is_code)
    };
    let codes = read_objects(memory, &codes, CODE_BYTES);
    let addresses: Vec<_> = codes.into_iter().map(|code| body_at(code?)).collect();
    let bodies = read_objects(memory, &addresses, BODY_BYTES);
    let bodies: Vec<Option<Body>> = addresses
        .iter()
        .zip(bodies)
        .map(|(address, body)| Body::parse(layout, (*address)?, &body?))
        .collect();
    let objects: Vec<Option<u64>> = bodies
        .iter()
        .flat_map(|body| [body.map(|body| body.label), body.map(|body| body.path)])
        .map(|object| object.and_then(object_at))
        .collect();
    let headers = read_objects(memory, &objects, HEADER_BYTES);
    let path_objects: Vec<Option<u64>> = objects
        .iter()
        .zip(&headers)
        .skip(1)
        .step_by(2)
        .flat_map(|(object, header)| match (object, header) {
            (Some(object), Some(header)) => paths(*object, header),
            _ => [None, None],
        })
        .collect();
    let path_headers = read_objects(memory, &path_objects, HEADER_BYTES);
    let text = |object: Option<u64>, header: &Option<Vec<u8>>| {
        TextHeader::parse(layout, object?, header.as_deref()?)
    };
    let paths_of = |frame: usize| {
        [frame * 2, frame * 2 + 1].map(|at| text(path_objects[at], &path_headers[at]))
    };
    bodies
        .into_iter()
        .enumerate()
        .map(|(frame, body)| {
            Some(CodeParts {
                body: body?,
                label: text(objects[frame * 2], &headers[frame * 2])?,
                paths: paths_of(frame),
            })
        })
        .collect()
}

/// `bytes` from each address that there is.
fn read_objects(memory: Memory, addresses: &[Option<u64>], bytes: usize) -> Vec<Option<Vec<u8>>> {
    let known: Vec<u64> = addresses.iter().flatten().copied().collect();
    let mut read = memory.read_each(&known, bytes).into_iter();
    addresses
        .iter()
        .map(|address| address.and_then(|_| read.next().flatten()))
        .collect()
}

impl Body {
    fn parse(layout: &Layout, address: u64, body: &[u8]) -> Option<Self> {
        let lines = layout.lines;
        Some(Self {
            address,
            words: u32_at(body, BODY_WORDS),
            instructions: u64_at(body, BODY_INSTRUCTIONS),
            path: u64_at(body, BODY_PATH),
            label: object_at(u64_at(body, BODY_LABEL))?,
            lines: u64_at(body, lines),
            lines_count: u32_at(body, lines + LINES_SIZE),
            lines_index: u64_at(body, lines + LINES_INDEX),
        })
    }
}

#[cfg(test)]
#[path = "code_tests.rs"]
mod tests;
