//! bpf(2) itself, for the commands that aya does not offer.

use std::io;

/// Calls bpf(2) with `command` of `enum bpf_cmd` (include/uapi/linux/bpf.h), and returns what it does:
/// a descriptor, of commands that make something.
///
/// # Safety
///
/// `attributes` is a beginning of `union bpf_attr` as `command` takes it, and what it points to is
/// valid for the call.
pub(super) unsafe fn bpf<A>(command: libc::c_long, attributes: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: the caller's promise.
    let status = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<A>(),
        )
    };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(status)
}
