//! The code cache: from an address in compiled code to the blob that it belongs to.
//!
//! memory/heap.cpp: a heap is made of segments, and a map has a byte for each, which leads back
//! towards the first segment of its block. A block is a header and a `CodeBlob`.

use std::ops::Range;

use super::super::elf::{i32_at, u32_at, u64_at};
use super::super::memory::Memory;
use super::layout::{Extent, Layout, STRUCT_MAX_BYTES};
use super::walk_memory::WalkMemory;

/// JDK 17 has three at most: code that is profiled, code that is not, and the rest.
const HEAPS_MAX: u32 = 16;
const FREE_SEGMENT: u8 = 0xff;
/// A block of 240 MiB, the largest a code cache is by default, takes some 8 000 steps of 254
/// segments; the interpreter some ten.
const STEPS_MAX: usize = 256;
/// `StubRoutines::cont_returnBarrier` is the only place in it that a call returns to.
const CONTINUATIONS: &str = "StubRoutines (continuation";
const NAME_BYTES: usize = 32;
const FRAME_MAX_BYTES: u64 = 1 << 20;

/// Where a heap's code is, and its map of segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heap {
    code: Range<u64>,
    segments: Range<u64>,
    segment_shift: u32,
}

/// What kind of code a blob has, told by its name (`CodeBlob::_name`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BlobKind {
    Interpreter,
    Compiled,
    /// The way from compiled code into a method written in C.
    NativeWrapper,
    /// Where the innermost frames of a virtual thread go on that were copied to its carrier's
    /// stack: the others are still in the heap. From JDK 21 on.
    ReturnBarrier,
    /// Anything else that the JVM wrote for itself.
    Stub(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) address: u64,
    pub(super) kind: BlobKind,
    pub(super) code: Range<u64>,
    /// The return address included; 0 where a frame pointer is kept instead.
    pub(super) frame_bytes: u64,
}

/// `None` while the JVM has not made them.
pub(super) fn heaps(memory: Memory, layout: &Layout) -> Option<Vec<Heap>> {
    let layout = &layout.cache;
    let array = memory.u64_at(layout.heaps).filter(|at| *at != 0)?;
    let array = memory.read(array, STRUCT_MAX_BYTES.min(layout.array_bytes()))?;
    let count = u32_at(&array, layout.array_length);
    if count == 0 || count > HEAPS_MAX {
        return None;
    }
    let pointers = memory.read(u64_at(&array, layout.array_elements), count as usize * 8)?;
    let pointers = (0..count as usize).map(|index| u64_at(&pointers, index * 8));
    let heap = |at| {
        let heap = memory.read(at, layout.heap_bytes())?;
        let word = |at| u64_at(&heap, at);
        Some(Heap {
            code: word(layout.heap_low)..word(layout.heap_high),
            segments: word(layout.segments_low)..word(layout.segments_high),
            segment_shift: u32_at(&heap, layout.segment_shift),
        })
    };
    let heaps: Vec<Heap> = pointers.map(heap).collect::<Option<_>>()?;
    let is_made = |heap: &Heap| !heap.code.is_empty() && (4..16).contains(&heap.segment_shift);
    heaps.iter().all(is_made).then_some(heaps)
}

impl super::layout::CodeCacheLayout {
    fn array_bytes(&self) -> usize {
        self.array_length.max(self.array_elements) + 8
    }

    fn heap_bytes(&self) -> usize {
        let ends = [
            self.heap_low,
            self.heap_high,
            self.segments_low,
            self.segments_high,
            self.segment_shift,
        ];
        ends.into_iter().fold(0, usize::max) + 8
    }
}

impl Heap {
    pub(super) fn contains(&self, pc: u64) -> bool {
        self.code.contains(&pc)
    }

    /// Of the block that `pc` lies in.
    fn block(&self, memory: WalkMemory<'_>, pc: u64) -> Option<u64> {
        let mut segment = pc.checked_sub(self.code.start)? >> self.segment_shift;
        for _ in 0..STEPS_MAX {
            let at = self.segments.start.checked_add(segment)?;
            if !self.segments.contains(&at) {
                return None;
            }
            let mut back = [0];
            memory.read_into(at, &mut back)?;
            match back {
                [0] => return self.code.start.checked_add(segment << self.segment_shift),
                [FREE_SEGMENT] => return None,
                [back] => segment = segment.checked_sub(back.into())?,
            }
        }
        None
    }
}

impl Blob {
    /// The blob whose code has `pc`; none where it was freed, or is just being made.
    pub(super) fn find(
        memory: WalkMemory<'_>,
        layout: &Layout,
        heaps: &[Heap],
        pc: u64,
    ) -> Option<Self> {
        let heap = heaps.iter().find(|heap| heap.contains(pc))?;
        let block = heap.block(memory, pc)?;
        let cache = &layout.cache;
        let header = memory.read(block, cache.block_bytes)?;
        // 64 bits up to JDK 21, and never more than 32 of them used.
        let block_bytes = u64::from(u32_at(&header, cache.block_length)) << heap.segment_shift;
        let is_used = header.get(cache.block_used).is_some_and(|used| *used == 1);
        if !is_used || pc - block >= block_bytes {
            return None;
        }
        let address = block + cache.block_bytes as u64;
        let blob = memory.read(address, layout.blob.bytes)?;
        let place = |at| place(layout.blob.code, address, &blob, at);
        let code = place(layout.blob.code_begin)?..place(layout.blob.code_end)?;
        let is_within = code.start >= address && code.end <= block.checked_add(block_bytes)?;
        if !is_within || !code.contains(&pc) {
            return None;
        }
        let name = memory.read(u64_at(&blob, layout.blob.name), NAME_BYTES)?;
        let frame_words = u64::try_from(i32_at(&blob, layout.blob.frame_size)).ok();
        Some(Self {
            address,
            kind: BlobKind::of(&name)?,
            code,
            frame_bytes: frame_words
                .map(|words| words * 8)
                .filter(|bytes| *bytes <= FRAME_MAX_BYTES)
                .unwrap_or(0),
        })
    }
}

/// An address that a blob tells, in either of its ways.
pub(super) fn place(extent: Extent, address: u64, blob: &[u8], at: usize) -> Option<u64> {
    match extent {
        Extent::Pointers => Some(u64_at(blob, at)),
        Extent::Offsets => address.checked_add(u32_at(blob, at).into()),
    }
}

impl BlobKind {
    fn of(name: &[u8]) -> Option<Self> {
        let end = name.iter().position(|byte| *byte == 0);
        let name = std::str::from_utf8(&name[..end.unwrap_or(name.len())]).ok()?;
        Some(match name {
            "Interpreter" => Self::Interpreter,
            "nmethod" => Self::Compiled,
            "native nmethod" => Self::NativeWrapper,
            _ if name.starts_with(CONTINUATIONS) => Self::ReturnBarrier,
            _ => Self::Stub(name.chars().filter(|it| !it.is_control()).collect()),
        })
    }
}
