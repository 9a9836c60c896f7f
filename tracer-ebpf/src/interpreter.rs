//! The interpreter walk: the frame list of the current thread, followed while it stands still.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_probe_read_user};
use tracer_ebpf::abi::{
    event::InterpreterStack,
    interpreter::{
        FRAME_WINDOW_BYTES, FRAMES_BOUNDED, FRAMES_FAULT, FRAMES_NO_STATE, FRAMES_UNASKED,
        FRAMES_WHOLE, HAS_CFRAME, HAS_OWNER, INSTRUCTION_I32, INTERPRETER_FRAMES_MAX, Interpreter,
        InterpreterFrame, OWNED_BY_C, ROOT_ABSOLUTE, ROOT_IS_FRAME,
    },
};

use crate::{globals::offset, maps::INTERPRETERS, task::Task};

/// In which /proc/PID/stat tells start times (USER_HZ is 100 on every architecture of ours).
const TICK_NS: u64 = 10_000_000;
/// A code object's address ends in zeroes; CPython 3.14 keeps tags there.
const TAG_BITS: u64 = 3;

/// What was found, for the event.
#[derive(Clone, Copy)]
pub(crate) struct Frames {
    pub(crate) runtime: u32,
    pub(crate) count: u16,
    pub(crate) end: u16,
}

#[inline(always)]
fn read_user<T>(address: u64) -> Option<T> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the helper fills the value or fails, and checks the source.
    unsafe {
        let failed = bpf_probe_read_user(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            address as *const _,
        );
        (failed == 0).then(|| value.assume_init())
    }
}

/// The layout that userspace found for the process of `task`, unless its PID was another's.
#[inline(always)]
pub(crate) fn of(task: Task, tgid: u32) -> Option<&'static Interpreter> {
    // SAFETY: a value of the map is valid for the program's run.
    let interpreter = unsafe { &*INTERPRETERS.get_ptr(tgid)? };
    (task.process_start_ns() / TICK_NS == interpreter.start_ticks).then_some(interpreter)
}

/// A child runs the same code at the same addresses until it calls exec.
#[inline(always)]
pub(crate) fn inherit(parent: Task, parent_tgid: u32, child: Task) {
    let Some(interpreter) = of(parent, parent_tgid) else {
        return;
    };
    let inherited = Interpreter {
        start_ticks: child.process_start_ns() / TICK_NS,
        ..*interpreter
    };
    // Full: the child is discovered at its first connect, like a stranger.
    let _ = INTERPRETERS.insert(child.tgid(), inherited, u64::from(BPF_NOEXIST));
}

#[inline(always)]
pub(crate) fn forget(tgid: u32) {
    let _ = INTERPRETERS.remove(tgid);
}

/// The innermost frame, 0 if no frame runs.
#[inline(always)]
fn innermost(interpreter: &Interpreter, task: Task) -> Option<u64> {
    let thread: u64 = task.read(offset!(task_fsbase))?;
    let slot = if interpreter.flags & ROOT_ABSOLUTE != 0 {
        interpreter.root
    } else {
        thread.wrapping_add(interpreter.root)
    };
    let state: u64 = read_user(slot)?;
    if interpreter.flags & ROOT_IS_FRAME != 0 {
        return Some(state);
    }
    // A key of another library in the slot would lead anywhere.
    if read_user::<u64>(state + u64::from(interpreter.state_thread))? != thread {
        return None;
    }
    let frame: u64 = read_user(state + u64::from(interpreter.state_frame))?;
    if interpreter.flags & HAS_CFRAME != 0 {
        return read_user(frame + u64::from(interpreter.cframe_frame));
    }
    Some(frame)
}

/// Walks into `stack`, whose window is scratch space.
///
/// # Safety
///
/// `stack` points to an `InterpreterStack` that nobody else uses.
#[inline(always)]
pub(crate) unsafe fn walk(
    stack: *mut InterpreterStack,
    interpreter: Option<&Interpreter>,
    task: Task,
) -> Frames {
    let mut found = Frames {
        runtime: 0,
        count: 0,
        end: FRAMES_UNASKED,
    };
    let Some(interpreter) = interpreter else {
        return found;
    };
    found.runtime = interpreter.runtime;
    let Some(mut frame) = innermost(interpreter, task) else {
        found.end = FRAMES_NO_STATE;
        return found;
    };
    let mask = if interpreter.flags & INSTRUCTION_I32 != 0 {
        0xffff_ffff
    } else {
        u64::MAX
    };
    // No owner reaches this where frames have none.
    let owned_by_c = if interpreter.flags & HAS_OWNER != 0 {
        OWNED_BY_C
    } else {
        u8::MAX
    };
    let mut count = 0_usize;
    found.end = FRAMES_BOUNDED;
    // One counter only: the verifier follows each pair of two.
    while count < INTERPRETER_FRAMES_MAX {
        if frame == 0 {
            found.end = FRAMES_WHOLE;
            break;
        }
        // SAFETY: the caller's promise; the size is masked to the window's.
        let failed = unsafe {
            bpf_probe_read_user(
                (&raw mut (*stack).window).cast(),
                u32::from(interpreter.frame_bytes) & (FRAME_WINDOW_BYTES as u32 - 1),
                frame as *const _,
            )
        };
        if failed != 0 {
            found.end = FRAMES_FAULT;
            break;
        }
        // SAFETY: as above; `word` and `byte` stay within the window, `count` within the frames.
        unsafe {
            let mut code = word(stack, interpreter.frame_code) & !TAG_BITS;
            if byte(stack, interpreter.frame_owner) >= owned_by_c {
                code = 0;
            }
            (&raw mut (*stack).frames)
                .cast::<InterpreterFrame>()
                .add(count)
                .write(InterpreterFrame {
                    code,
                    instruction: word(stack, interpreter.frame_instruction) & mask,
                });
            frame = word(stack, interpreter.frame_previous);
        }
        count += 1;
    }
    found.count = count as u16;
    found
}

/// The eight bytes at `offset` of the window, which is a multiple of eight.
#[inline(always)]
unsafe fn word(stack: *const InterpreterStack, offset: u16) -> u64 {
    let at = usize::from(offset) & (FRAME_WINDOW_BYTES - 8);
    // SAFETY: at most eight less than the window's size; the caller's pointer is valid.
    unsafe {
        (&raw const (*stack).window)
            .cast::<u8>()
            .add(at)
            .cast::<u64>()
            .read_volatile()
    }
}

#[inline(always)]
unsafe fn byte(stack: *const InterpreterStack, offset: u16) -> u8 {
    let at = usize::from(offset) & (FRAME_WINDOW_BYTES - 1);
    // SAFETY: within the window; the caller's pointer is valid.
    unsafe {
        (&raw const (*stack).window)
            .cast::<u8>()
            .add(at)
            .read_volatile()
    }
}
