//! An event: one entry of the ring. It only says that something changed; the truth is in `SOCKETS`.

use crate::abi::{
    interpreter::{INTERPRETER_FRAMES_MAX, InterpreterFrame},
    socket::SocketRecord,
};

/// `EventHeader::kind`: connect was called; a `ConnectEvent` and its stack copy.
pub const CONNECT: u32 = 1;
/// `EventHeader::kind`: a socket changed (state, owner, release); a `SocketEvent`.
pub const SOCKET: u32 = 2;
/// `EventHeader::kind`: a socket was destroyed and its record removed; a `SocketEvent`.
pub const DESTROYED: u32 = 3;
/// `EventHeader::kind`: an opener forked; a `ProcessEvent` of the child.
pub const FORK: u32 = 4;
/// `EventHeader::kind`: an opener called exec; a `ProcessEvent`.
pub const EXEC: u32 = 5;
/// `EventHeader::kind`: an opener's last thread ended; a `ProcessEvent`.
pub const EXIT: u32 = 6;
/// `EventHeader::kind`: a process that is no opener called exec; a `ProcessEvent`.
pub const PROGRAM: u32 = 7;

/// More than this part of the ring waits, and it fills: a stack that is added wakes the reader, which
/// pauses no longer.
pub const RING_FILLING_PART: u64 = 8;

/// What every event begins with.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventHeader {
    pub kind: u32,
    /// Of the whole event, variable part included; the ring's entry may be longer.
    pub length_bytes: u32,
    /// CLOCK_BOOTTIME.
    pub time_ns: u64,
}

/// A socket as it is after the event: whoever missed the events before it misses nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketEvent {
    pub header: EventHeader,
    /// Address of the `struct sock`, the key in `SOCKETS`.
    pub socket: u64,
    pub record: SocketRecord,
}

/// `ConnectEvent::flags`: the copy ended at its bound, not at the top of the stack.
pub const STACK_BOUNDED: u32 = 1 << 0;
/// `ConnectEvent::flags`: user registers were had.
pub const HAS_REGISTERS: u32 = 1 << 1;

/// connect was called. An `InterpreterStack` follows, and then the stack copy: `stack_bytes` bytes
/// from `stack_base` upwards.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectEvent {
    pub socket: SocketEvent,
    pub ip: u64,
    pub sp: u64,
    pub fp: u64,
    /// Link register on aarch64; 0 on x86_64.
    pub lr: u64,
    /// Address of the copy's first byte: `sp` rounded down to its page.
    pub stack_base: u64,
    pub stack_bytes: u32,
    pub flags: u32,
    /// `Interpreter::runtime` of the process's entry.
    pub runtime: u32,
    /// Interpreter frames, innermost first.
    pub frame_count: u16,
    /// How their walk ended: one of `interpreter::FRAMES_*`.
    pub frames_end: u16,
}

/// Between a `ConnectEvent` and its stack copy. Frames beyond the count are whatever the ring had
/// there before.
pub type InterpreterStack = [InterpreterFrame; INTERPRETER_FRAMES_MAX];

/// A process that holds or held watched sockets forked, called exec or ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessEvent {
    pub header: EventHeader,
    pub start_ns: u64,
    pub parent_start_ns: u64,
    pub tgid: u32,
    /// FORK only.
    pub parent_tgid: u32,
    pub comm: [u8; 16],
}

const _: () = {
    assert!(size_of::<EventHeader>() == 16);
    assert!(size_of::<SocketEvent>() == 136);
    assert!(size_of::<ConnectEvent>() == 192);
    assert!(size_of::<ProcessEvent>() == 56);
    assert!(size_of::<InterpreterStack>() == 1024);
    assert!(core::mem::offset_of!(SocketEvent, record) == 24);
    assert!(core::mem::offset_of!(ConnectEvent, ip) == 136);
};
