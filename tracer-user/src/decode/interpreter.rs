//! Interpreter frames at the border: the kernel side's walk decoded, and its orders encoded.

use tracer_ebpf::abi::{
    event::ConnectEvent,
    interpreter::{
        CODE_BITS, FRAMES_BOUNDED, FRAMES_FAULT, FRAMES_NO_STATE, FRAMES_WHOLE, HAS_CFRAME,
        HAS_NATIVE_STRUCT, HAS_OWNER, HAS_THREAD_STRUCT, INSTRUCTION_I32, INTERPRETER_FRAMES_MAX,
        Interpreter, InterpreterFrame, OWNED_BY_C, OWNER_SHIFT, ROOT_ABSOLUTE, ROOT_IS_FRAME,
    },
};

use super::wire;
use crate::stacks::{Announcement, Caller, FrameSample, FramesEnd, Root};

/// The frames of `event`; `bytes` begin with them.
pub(super) fn frames(event: &ConnectEvent, bytes: &[u8]) -> FrameSample {
    let end = match event.frames_end {
        FRAMES_WHOLE => FramesEnd::Whole,
        FRAMES_BOUNDED => FramesEnd::Bounded,
        FRAMES_FAULT => FramesEnd::Fault,
        FRAMES_NO_STATE => FramesEnd::NoState,
        _ => FramesEnd::Unasked,
    };
    let count = usize::from(event.frame_count).min(INTERPRETER_FRAMES_MAX);
    let frames = bytes
        .chunks_exact(size_of::<InterpreterFrame>())
        .take(count)
        .filter_map(wire::read::<InterpreterFrame>)
        .filter(|frame| frame.code >> OWNER_SHIFT < u64::from(OWNED_BY_C))
        .map(|frame| (frame.code & CODE_BITS, frame.instruction))
        .filter(|&(code, _)| code != 0)
        .collect();
    FrameSample {
        runtime: event.runtime,
        end,
        frames,
    }
}

/// What the kernel side is told about one process.
pub fn order(announcement: &Announcement) -> Interpreter {
    let layout = &announcement.layout;
    let flag = |is_set: bool, flag| if is_set { flag } else { 0 };
    let (root, root_flags) = match layout.root {
        Root::Thread(offset) => (offset as u64, 0),
        Root::Address(address) => (address, ROOT_ABSOLUTE | ROOT_IS_FRAME),
    };
    let (frame_previous, link_mask, state_stack, frame_step) = match layout.caller {
        Caller::Linked { previous } => (previous, u64::MAX, 0, 0),
        Caller::Next {
            state_stack,
            frame_bytes,
        } => (0, 0, state_stack, frame_bytes),
    };
    let last = layout
        .frame_code
        .max(frame_previous)
        .max(layout.frame_instruction)
        .max(layout.frame_owner.map_or(0, |owner| owner & !7));
    Interpreter {
        start_ticks: announcement.start_ticks,
        root,
        runtime: announcement.runtime,
        flags: root_flags
            | flag(layout.state_owner.is_some(), HAS_THREAD_STRUCT)
            | flag(layout.owner_native.is_some(), HAS_NATIVE_STRUCT)
            | flag(layout.cframe_frame.is_some(), HAS_CFRAME)
            | flag(layout.frame_owner.is_some(), HAS_OWNER)
            | flag(layout.instruction_is_i32, INSTRUCTION_I32),
        state_thread: layout.state_thread,
        state_frame: layout.state_frame,
        cframe_frame: layout.cframe_frame.unwrap_or(0),
        frame_code: layout.frame_code,
        frame_previous,
        frame_instruction: layout.frame_instruction,
        frame_owner: layout.frame_owner.unwrap_or(0),
        frame_bytes: last + 8,
        state_owner: layout.state_owner.unwrap_or(0),
        owner_native: layout.owner_native.unwrap_or(0),
        state_stack,
        frame_step,
        link_mask,
    }
}
