//! Leaving the machine with an exit code, through QEMU's isa-debug-exit device.

use std::io;

/// QEMU then exits with `code * 2 + 1`.
const DEBUG_EXIT_PORT: u16 = 0xf4;

/// Returns only when the device is not there.
pub(super) fn leave(code: u32) -> io::Error {
    // SAFETY: plain system call without pointers.
    unsafe { libc::sync() };
    // SAFETY: raises this process's I/O privilege; nothing else runs in it any more.
    if unsafe { libc::iopl(3) } != 0 {
        return io::Error::last_os_error();
    }
    // SAFETY: the port belongs to isa-debug-exit; on a machine without it the write has no effect.
    unsafe {
        std::arch::asm!("out dx, eax", in("dx") DEBUG_EXIT_PORT, in("eax") code, options(nomem, nostack));
    }
    io::Error::new(
        io::ErrorKind::NotFound,
        "the machine has no isa-debug-exit device at 0xf4",
    )
}

/// The kernel gives nothing of a serial line's buffer to QEMU after the device has been written.
pub(super) fn drain(line: &impl std::os::fd::AsRawFd) {
    // SAFETY: the descriptor is open for the time of the borrow; failing on a non-terminal is harmless.
    unsafe { libc::tcdrain(line.as_raw_fd()) };
}
