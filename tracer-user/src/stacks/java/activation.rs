//! An activation: one Java frame of a stack copy, and where its caller goes on.
//!
//! runtime/frame_x86.hpp: an interpreted frame keeps a frame pointer, and method, bytecode and the
//! caller's stack pointer at fixed slots from it. A compiled frame is as large as its blob says and
//! keeps no frame pointer; whoever called it left its return address at the end.

use super::super::elf::i32_at;
use super::code_cache::{Blob, BlobKind, Heap, place};
use super::layout::{CompiledLayout, Extent, Layout};
use super::walk_memory::WalkMemory;

/// Which slots of an interpreted frame are the same whatever the version.
const SENDER_SP: i64 = -8;
const RETURN_ADDRESS: i64 = 8;
const FRAME_POINTER_FRAME: u64 = 16;

/// Registers of a frame, as its callee returns to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Returned {
    pub(in super::super) pc: u64,
    pub(in super::super) sp: u64,
    pub(in super::super) fp: u64,
}

/// What a frame runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    Interpreted {
        method: u64,
        bytecode: u64,
    },
    /// `pc` is the place it goes on at, or would have.
    Compiled {
        blob: Blob,
        pc: u64,
    },
    Stub(String),
}

/// What a frame is found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Caller(Activation, Returned),
    /// The frames outside of it are no longer, or not yet, on this stack.
    InHeap,
}

/// What `at` belongs to, and its caller. `read` has the stack as it was at connect.
pub(super) fn step(
    memory: WalkMemory<'_>,
    layout: &Layout,
    heaps: &[Heap],
    at: Returned,
    read: &mut impl FnMut(u64) -> Option<u64>,
) -> Option<Step> {
    let blob = Blob::find(memory, layout, heaps, at.pc)?;
    let mut slot = |base: u64, offset: i64| read(base.checked_add_signed(offset)?);
    let by_frame_pointer = |slot: &mut dyn FnMut(u64, i64) -> Option<u64>| {
        Some(Returned {
            pc: slot(at.fp, RETURN_ADDRESS)?,
            sp: at.fp.checked_add(FRAME_POINTER_FRAME)?,
            fp: slot(at.fp, 0)?,
        })
    };
    let (activation, caller) = match &blob.kind {
        BlobKind::ReturnBarrier => return Some(Step::InHeap),
        BlobKind::Interpreter => {
            let caller = by_frame_pointer(&mut slot)?;
            // Arguments on the caller's stack became the callee's locals, and more were added.
            let sp = slot(at.fp, SENDER_SP).filter(|sp| *sp >= caller.sp)?;
            let activation = Activation::Interpreted {
                method: slot(at.fp, layout.frame_method)?,
                bytecode: slot(at.fp, layout.frame_bytecode)?,
            };
            (activation, Returned { sp, ..caller })
        }
        kind if blob.frame_bytes >= FRAME_POINTER_FRAME => {
            let end = at.sp.checked_add(blob.frame_bytes)?;
            let caller = Returned {
                pc: slot(end, -8)?,
                sp: end,
                fp: slot(end, -16)?,
            };
            let activation = match kind {
                BlobKind::Stub(name) => Activation::Stub(name.clone()),
                _ => {
                    let pc = original_pc(
                        memory,
                        &layout.compiled,
                        layout.blob.code,
                        &blob,
                        at,
                        &mut slot,
                    )?;
                    Activation::Compiled { blob, pc }
                }
            };
            (activation, caller)
        }
        BlobKind::Stub(name) => (Activation::Stub(name.clone()), by_frame_pointer(&mut slot)?),
        _ => return None,
    };
    // The stack grows downwards: whoever called lies above.
    (caller.sp > at.sp).then_some(Step::Caller(activation, caller))
}

/// A frame that is to be interpreted from now on goes on elsewhere, and keeps where it was.
fn original_pc(
    memory: WalkMemory<'_>,
    layout: &CompiledLayout,
    extent: Extent,
    blob: &Blob,
    at: Returned,
    slot: &mut dyn FnMut(u64, i64) -> Option<u64>,
) -> Option<u64> {
    let compiled = memory.read(blob.address, layout.bytes)?;
    if place(extent, blob.address, &compiled, layout.deoptimized)? != at.pc {
        return Some(at.pc);
    }
    let pc = slot(at.sp, i32_at(&compiled, layout.original_pc).into())?;
    blob.code.contains(&pc).then_some(pc)
}
