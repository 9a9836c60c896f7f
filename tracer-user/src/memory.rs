//! Memory: what this process holds, gives back, and asks for as a file.

use std::{fs, fs::File, io, os::fd::FromRawFd};

/// glibc keeps what was freed in small pieces: what a burst needed would stay ours for good.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointers and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// VmRSS of this process.
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// A file that has no name and lives in memory.
///
/// # Errors
///
/// The kernel refused it (`memfd_create`).
pub fn file() -> io::Result<File> {
    // SAFETY: the name is a literal that ends in NUL; the call touches no other memory.
    let fd = unsafe { libc::memfd_create(c"connleak".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just created and nothing else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}
