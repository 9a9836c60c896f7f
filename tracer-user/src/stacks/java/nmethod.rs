//! An nmethod: compiled code, which says what it was compiled from and what its instructions run.
//!
//! code/nmethod.hpp: a blob with a method, a state, and debug information that it was compiled with.

use std::ops::{Range, RangeInclusive};

use super::super::elf::{i32_at, u64_at};
use super::code_cache::{Blob, BlobKind};
use super::layout::{DebugInfoLayout, Layout};
use super::scopes::DebugInfo;
use super::walk_memory::WalkMemory;

/// `not_installed`, and what was freed: `zombie`, `unloaded` up to JDK 19. What is not entered any
/// more (`not_entrant`) may still have activations.
const STATES_IN_USE: RangeInclusive<i8> = 0..=2;
/// Of each of its three parts. It is read for each compiled frame of a stack, and of the largest
/// methods it has a hundred kilobytes.
const DEBUG_INFO_MAX_BYTES: u64 = 1 << 18;

/// The method that was compiled, what it was compiled as, and what the compiler wrote down of it.
pub(super) struct Compiled {
    pub(super) method: u64,
    pub(super) debug_info: Option<DebugInfo>,
}

/// None where the code is not, or no longer, what frames may be in.
pub(super) fn compiled(memory: WalkMemory<'_>, layout: &Layout, blob: &Blob) -> Option<Compiled> {
    let compiled_layout = &layout.compiled;
    let header = memory.read(blob.address, compiled_layout.bytes)?;
    let state = *header.get(compiled_layout.state)?;
    if !STATES_IN_USE.contains(&(state as i8)) {
        return None;
    }
    let debug_info = match blob.kind {
        BlobKind::Compiled => Some(debug_info(memory, layout, blob, &header)?),
        _ => None,
    };
    // Code that took this one's place while it was read has another number.
    let id = |header: &[u8]| i32_at(header, compiled_layout.compile_id);
    let again = memory.read(blob.address, compiled_layout.bytes)?;
    (id(&again) == id(&header)).then(|| Compiled {
        method: u64_at(&header, compiled_layout.method),
        debug_info,
    })
}

fn debug_info(
    memory: WalkMemory<'_>,
    layout: &Layout,
    blob: &Blob,
    header: &[u8],
) -> Option<DebugInfo> {
    let compiled = &layout.compiled;
    let word = |at| u64_at(header, at);
    let int = |at| u64::try_from(i32_at(header, at)).ok();
    let within = |at| blob.address.checked_add(int(at)?);
    let (metadata, scopes, places) = match compiled.debug_info {
        DebugInfoLayout::Within {
            metadata,
            scopes,
            places,
            places_end,
        } => {
            let [metadata, places, end] = [within(metadata)?, within(places)?, within(places_end)?];
            let scopes = word(scopes);
            (metadata..scopes, scopes..places, places..end)
        }
        DebugInfoLayout::Apart {
            mutable,
            mutable_bytes,
            relocation_bytes,
            immutable,
            immutable_bytes,
            places,
            scopes,
        } => {
            let [mutable, immutable] = [word(mutable), word(immutable)];
            let metadata = mutable.checked_add(int(relocation_bytes)?)?;
            let scopes = immutable.checked_add(int(scopes)?)?;
            (
                metadata..mutable.checked_add(int(mutable_bytes)?)?,
                scopes..immutable.checked_add(int(immutable_bytes)?)?,
                immutable.checked_add(int(places)?)?..scopes,
            )
        }
    };
    let read = |range: Range<u64>| {
        let bytes = range.end.checked_sub(range.start)?;
        let bytes = Some(bytes).filter(|bytes| *bytes <= DEBUG_INFO_MAX_BYTES)?;
        memory.read(range.start, bytes as usize)
    };
    Some(DebugInfo {
        places: read(places)?,
        place_bytes: compiled.place_bytes,
        place_pc: compiled.place_pc,
        place_scope: compiled.place_scope,
        scopes: read(scopes)?,
        metadata: read(metadata)?,
        excluded: layout.excluded,
    })
}
