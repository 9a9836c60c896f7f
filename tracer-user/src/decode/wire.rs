//! The wire: structs of the contract, read from bytes that need not be aligned.

use tracer_ebpf::abi::{
    event::{ConnectEvent, EventHeader, ProcessEvent, SocketEvent},
    interpreter::InterpreterFrame,
    open_file::OpenFile,
};

/// A struct of the contract that any bytes of its size are a value of.
///
/// # Safety
///
/// `repr(C)`, integers and arrays of integers only, no implicit padding.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: see the definitions, which assert their sizes.
unsafe impl Plain for EventHeader {}
// SAFETY: as above.
unsafe impl Plain for SocketEvent {}
// SAFETY: as above.
unsafe impl Plain for ConnectEvent {}
// SAFETY: as above.
unsafe impl Plain for ProcessEvent {}
// SAFETY: as above.
unsafe impl Plain for OpenFile {}
// SAFETY: as above.
unsafe impl Plain for InterpreterFrame {}

/// The `T` that `bytes` begin with, if they are long enough.
pub(super) fn read<T: Plain>(bytes: &[u8]) -> Option<T> {
    let bytes = bytes.get(..size_of::<T>())?;
    // SAFETY: the slice has the size of a T, any bytes are a T, and the read is unaligned.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
