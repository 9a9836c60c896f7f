//! An interpreter: where one process keeps the frame list of the thread that runs.
//!
//! The same walk serves every runtime whose frames are linked or stand in a row: a root, a frame, the
//! frame that called it. Userspace finds the offsets, the kernel side follows them.

/// Frames taken at most.
pub const INTERPRETER_FRAMES_MAX: usize = 64;
/// A frame is read in one go, this much at most.
pub const FRAME_WINDOW_BYTES: usize = 128;

/// `Interpreter::flags`: `root` is an address, not an offset from the thread pointer.
pub const ROOT_ABSOLUTE: u32 = 1 << 0;
/// `Interpreter::flags`: the state at the root leads to the frame through one more struct.
pub const HAS_CFRAME: u32 = 1 << 1;
/// `Interpreter::flags`: `frame_owner` tells the frames that stand for C code.
pub const HAS_OWNER: u32 = 1 << 2;
/// `Interpreter::flags`: the instruction is an `i32`, not a pointer.
pub const INSTRUCTION_I32: u32 = 1 << 3;
/// `Interpreter::flags`: the root is the first frame's own slot: there is no state.
pub const ROOT_IS_FRAME: u32 = 1 << 4;
/// `Interpreter::flags`: the state has its thread's pointer in another struct, at
/// `Interpreter::state_owner`.
pub const HAS_THREAD_STRUCT: u32 = 1 << 5;
/// `Interpreter::flags`: and that struct in one more, at `Interpreter::owner_native`.
pub const HAS_NATIVE_STRUCT: u32 = 1 << 6;

/// From this value on, `frame_owner` says that the frame stands for C code.
pub const OWNED_BY_C: u8 = 3;

/// Value of `INTERPRETERS`, keyed by tgid. Offsets within a frame stay below
/// [`FRAME_WINDOW_BYTES`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interpreter {
    /// `start_boottime` of the process in units of 10 ms, as /proc/PID/stat has it.
    pub start_ticks: u64,
    /// Offset from the thread pointer to the slot that points to the thread's state.
    pub root: u64,
    /// Userspace's name for what it knows of the runtime; comes back with each stack.
    pub runtime: u32,
    pub flags: u32,
    /// In the state, or the last struct that it leads to: the thread pointer once more, so that a
    /// wrong root is noticed.
    pub state_thread: u16,
    /// In the state: the innermost frame, or the struct that has it.
    pub state_frame: u16,
    /// In that struct.
    pub cframe_frame: u16,
    pub frame_code: u16,
    pub frame_previous: u16,
    pub frame_instruction: u16,
    pub frame_owner: u16,
    /// How much of a frame is read.
    pub frame_bytes: u16,
    /// In the state: the struct of its thread.
    pub state_owner: u16,
    /// In that struct: the one of the native thread.
    pub owner_native: u16,
    /// In the state: where the stack that frames stand on begins; its size in words follows.
    pub state_stack: u16,
    /// From a frame to the one that called it where they stand in a row, else 0.
    pub frame_step: u16,
    /// All ones where `frame_previous` leads to the frame that called, 0 where frames stand in a row.
    pub link_mask: u64,
}

/// `ConnectEvent::frames_end`: no interpreter is known for this process.
pub const FRAMES_UNASKED: u16 = 0;
/// The outermost frame was reached.
pub const FRAMES_WHOLE: u16 = 1;
/// There are more than [`INTERPRETER_FRAMES_MAX`].
pub const FRAMES_BOUNDED: u16 = 2;
/// A frame could not be read.
pub const FRAMES_FAULT: u16 = 3;
/// The thread has no state: it runs no interpreter, or the root is wrong.
pub const FRAMES_NO_STATE: u16 = 4;

/// `InterpreterFrame::code`: a user address, of five-level page tables too.
pub const CODE_BITS: u64 = (1 << OWNER_SHIFT) - 1;
pub const OWNER_SHIFT: u32 = 56;

/// One frame as the kernel side saw it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterpreterFrame {
    /// The code's address in [`CODE_BITS`], and above it the frame's owner, 0 where frames have
    /// none: userspace drops the frames that stand for C code.
    pub code: u64,
    pub instruction: u64,
}

const _: () = {
    assert!(size_of::<Interpreter>() == 56);
    assert!(size_of::<InterpreterFrame>() == 16);
};

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding: any bytes are a value.
unsafe impl aya::Pod for Interpreter {}
