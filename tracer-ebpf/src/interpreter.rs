//! The interpreter walk: the frame list of the current thread, followed while it stands still.

use aya_ebpf::{
    bindings::BPF_NOEXIST, helpers::generated::bpf_probe_read_user, maps::ring_buf::RingBufEntry,
};
use tracer_ebpf::abi::{
    event::InterpreterStack,
    interpreter::{
        CODE_BITS, FRAME_WINDOW_BYTES, FRAMES_BOUNDED, FRAMES_FAULT, FRAMES_NO_STATE,
        FRAMES_UNASKED, FRAMES_WHOLE, HAS_CFRAME, HAS_NATIVE_STRUCT, HAS_OWNER, HAS_THREAD_STRUCT,
        INSTRUCTION_I32, INTERPRETER_FRAMES_MAX, Interpreter, InterpreterFrame, OWNER_SHIFT,
        ROOT_ABSOLUTE, ROOT_IS_FRAME,
    },
};

use crate::{
    globals::offset,
    maps::{EVENTS, INTERPRETERS},
    task::Task,
};

/// In which /proc/PID/stat tells start times (USER_HZ is 100 on every architecture of ours).
const TICK_NS: u64 = 10_000_000;
/// A code object's address ends in zeroes; CPython 3.14 keeps tags there.
const TAG_BITS: u64 = 3;

/// What was found, for the event.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub(crate) runtime: u32,
    pub(crate) count: u16,
    pub(crate) end: u16,
}

impl Found {
    /// No interpreter is known for the process.
    pub(crate) const NOTHING: Self = Self {
        runtime: 0,
        count: 0,
        end: FRAMES_UNASKED,
    };
}

/// A walk's notes: what it has found so far, and the frame it looks at.
///
/// They are too large for a program's stack (512 bytes), and a slot a CPU would be shared by two
/// tasks where a program can be preempted: fentry programs only keep their CPU, and nothing
/// keeps a second task from entering one before 5.12 (ca06f55b9002, per-program recursion). So
/// they stand in an entry of the ring, which is given back when the event is written.
#[repr(C)]
pub(crate) struct Notes {
    frames: InterpreterStack,
    window: [u8; FRAME_WINDOW_BYTES],
    /// Where frames in a row end, 0 where they are linked.
    row_end: u64,
    found: Found,
}

/// Notes on the ring.
pub(crate) struct Walk(RingBufEntry<Notes>);

impl Walk {
    /// Walks the frames of `task`, the current one. `None` if the ring has no room for the notes.
    #[inline(always)]
    pub(crate) fn take(interpreter: &Interpreter, task: Task) -> Option<Self> {
        let mut notes = EVENTS.reserve::<Notes>(0)?;
        // SAFETY: nobody else knows the entry yet.
        unsafe { walk(notes.as_mut_ptr(), interpreter, task) };
        Some(Self(notes))
    }

    #[inline(always)]
    pub(crate) fn found(&self) -> Found {
        // SAFETY: `walk` wrote it. Volatile, for what it wrote is no constant to the verifier when
        // it comes from memory: it follows what comes after the walk once, not once an ending.
        unsafe { (&raw const (*self.0.as_ptr()).found).read_volatile() }
    }

    #[inline(always)]
    pub(crate) fn frames(&self) -> *const InterpreterStack {
        // SAFETY: the entry lives as long as `self`.
        unsafe { &raw const (*self.0.as_ptr()).frames }
    }

    #[inline(always)]
    pub(crate) fn give_back(self) {
        // What was sent stands behind the notes. A reader that has caught up waits at these, and is
        // only woken by whoever frees the place it waits at (kernel/bpf/ringbuf.c,
        // bpf_ringbuf_commit): hence no BPF_RB_NO_WAKEUP.
        self.0.discard(0);
    }
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

/// The innermost frame, 0 if no frame runs. `row_end` is where frames in a row end, 0 before.
#[inline(always)]
fn innermost(interpreter: &Interpreter, task: Task, row_end: &mut u64) -> Option<u64> {
    let thread: u64 = task.read(offset!(task_fsbase))?;
    let flags = interpreter.flags;
    let slot = if flags & ROOT_ABSOLUTE != 0 {
        interpreter.root
    } else {
        thread.wrapping_add(interpreter.root)
    };
    let state: u64 = read_user(slot)?;
    if flags & ROOT_IS_FRAME != 0 {
        return Some(state);
    }
    // A key of another library in the slot would lead anywhere.
    let mut owner = state;
    if flags & HAS_THREAD_STRUCT != 0 {
        owner = read_user(owner + u64::from(interpreter.state_owner))?;
    }
    if flags & HAS_NATIVE_STRUCT != 0 {
        owner = read_user(owner + u64::from(interpreter.owner_native))?;
    }
    if read_user::<u64>(owner + u64::from(interpreter.state_thread))? != thread {
        return None;
    }
    let frame: u64 = read_user(state + u64::from(interpreter.state_frame))?;
    if flags & HAS_CFRAME != 0 {
        return read_user(frame + u64::from(interpreter.cframe_frame));
    }
    if interpreter.frame_step != 0 {
        let [stack, words]: [u64; 2] = read_user(state + u64::from(interpreter.state_stack))?;
        *row_end = stack.wrapping_add(words.wrapping_mul(8));
        return (frame >= stack && *row_end != 0).then_some(frame);
    }
    Some(frame)
}

/// A function of its own to the verifier too: every ending of the loop comes back to its caller as
/// one and the same state. Inlined, what follows would be verified once for each of them.
///
/// # Safety
///
/// `notes` points to `Notes` that nobody else uses.
#[inline(never)]
unsafe fn walk(notes: *mut Notes, interpreter: &Interpreter, task: Task) {
    // SAFETY: the caller's promise.
    let found = unsafe { &raw mut (*notes).found };
    let end = |count: usize, end: u16| {
        let ending = Found {
            runtime: interpreter.runtime,
            count: count as u16,
            end,
        };
        // SAFETY: as above.
        unsafe { found.write_volatile(ending) };
    };
    // SAFETY: as above.
    let row_end = unsafe { &raw mut (*notes).row_end };
    // SAFETY: as above.
    let first = unsafe {
        row_end.write(0);
        innermost(interpreter, task, &mut *row_end)
    };
    let Some(mut frame) = first else {
        return end(0, FRAMES_NO_STATE);
    };
    // SAFETY: as above. Volatile: a constant 0 would be another way through the loop.
    let row_end = unsafe { row_end.read_volatile() };
    // No branch on the flags: the verifier would go through the loop once for each of its ways,
    // and inside the loop once more in every round.
    let flags = u64::from(interpreter.flags);
    let mask = u64::MAX >> (flags / u64::from(INSTRUCTION_I32) % 2 * 32);
    let owner_mask = flags / u64::from(HAS_OWNER) % 2 * 0xff;
    let link_mask = interpreter.link_mask;
    let step = u64::from(interpreter.frame_step);
    let mut count = 0_usize;
    // One counter only: the verifier follows each pair of two.
    while count < INTERPRETER_FRAMES_MAX {
        // No frame, or the end of the row; an end of 0 is beyond every frame.
        if frame.wrapping_sub(1) >= row_end.wrapping_sub(1) {
            return end(count, FRAMES_WHOLE);
        }
        // SAFETY: the caller's promise; the size is masked to the window's.
        let failed = unsafe {
            bpf_probe_read_user(
                (&raw mut (*notes).window).cast(),
                u32::from(interpreter.frame_bytes) & (FRAME_WINDOW_BYTES as u32 - 1),
                frame as *const _,
            )
        };
        if failed != 0 {
            return end(count, FRAMES_FAULT);
        }
        // SAFETY: as above; `word` and `byte` stay within the window, `count` within the frames.
        unsafe {
            let owner = u64::from(byte(notes, interpreter.frame_owner)) & owner_mask;
            let code = word(notes, interpreter.frame_code) & !TAG_BITS & CODE_BITS;
            let code = code | owner << OWNER_SHIFT;
            let instruction = word(notes, interpreter.frame_instruction) & mask;
            (&raw mut (*notes).frames)
                .cast::<InterpreterFrame>()
                .add(count)
                .write(InterpreterFrame { code, instruction });
            let previous = word(notes, interpreter.frame_previous);
            let distance = previous.wrapping_sub(frame) & link_mask;
            frame = frame.wrapping_add(distance).wrapping_add(step);
        }
        count += 1;
    }
    end(count, FRAMES_BOUNDED);
}

/// The eight bytes at `offset` of the window, which is a multiple of eight.
#[inline(always)]
unsafe fn word(notes: *const Notes, offset: u16) -> u64 {
    let at = usize::from(offset) & (FRAME_WINDOW_BYTES - 8);
    // SAFETY: at most eight less than the window's size; the caller's pointer is valid.
    unsafe {
        (&raw const (*notes).window)
            .cast::<u8>()
            .add(at)
            .cast::<u64>()
            .read_volatile()
    }
}

#[inline(always)]
unsafe fn byte(notes: *const Notes, offset: u16) -> u8 {
    let at = usize::from(offset) & (FRAME_WINDOW_BYTES - 1);
    // SAFETY: within the window; the caller's pointer is valid.
    unsafe {
        (&raw const (*notes).window)
            .cast::<u8>()
            .add(at)
            .read_volatile()
    }
}
