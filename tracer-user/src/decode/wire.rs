//! The wire: structs of the contract, read from bytes that need not be aligned.

use tracer_ebpf::abi::{
    event::{ConnectEvent, EventHeader, ProcessEvent, SocketEvent},
    interpreter::InterpreterFrame,
    open_file::OpenFile,
    socket::SocketRecord,
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
unsafe impl Plain for SocketRecord {}
// SAFETY: as above.
unsafe impl Plain for InterpreterFrame {}

/// The `T` that `bytes` begin with, if they are long enough.
pub(super) fn read<T: Plain>(bytes: &[u8]) -> Option<T> {
    let bytes = bytes.get(..size_of::<T>())?;
    // SAFETY: the slice has the size of a T, any bytes are a T, and the read is unaligned.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// The bytes that `value` is.
pub(super) fn bytes<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: a plain value has no padding, so that every one of its bytes is initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}
