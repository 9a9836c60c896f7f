//! Memory: what this process holds, gives back, and asks for as a file.

mod interned;

use std::{fs, fs::File, hint, io, os::fd::FromRawFd};

pub use interned::Interned;

use crate::procfs;

/// glibc's own first value of it.
#[cfg(target_env = "gnu")]
const LARGE_BYTES: libc::c_int = 128 * 1024;

/// Has every large piece go back to the kernel as soon as it is freed. With the first one that is,
/// glibc would keep larger and larger ones, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD): a walk over
/// the open files would stay ours for good, under what was allocated meanwhile.
pub fn keep_nothing_large() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes no pointers.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
    }
}

/// The most that glibc takes from its heap (mallopt(3), M_MMAP_THRESHOLD): all that is smaller.
#[cfg(target_env = "gnu")]
const HEAP_PIECE_BYTES_MAX: libc::c_int = 32 * 1024 * 1024;
/// What a snapshot of 100,000 sockets takes.
#[cfg(target_env = "gnu")]
const HEAP_BYTES: usize = 64 * 1024 * 1024;
/// Of x86_64, and of most other machines.
#[cfg(target_env = "gnu")]
const HUGE_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// For a process that ends before long: nothing goes back to the kernel until then, and memory comes
/// in huge pages where the kernel has them. Faults of small ones would take a tenth of a snapshot.
pub fn live_shortly() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes no pointers. The heap is glibc's own, and advice on how it is mapped
    // changes nothing of what it holds; none of it is used before it is touched.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, HEAP_PIECE_BYTES_MAX);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        libc::mallopt(libc::M_TOP_PAD, HEAP_BYTES as libc::c_int);
        let start = (libc::sbrk(0) as usize).next_multiple_of(HUGE_PAGE_BYTES);
        // More than the heap has, which grows by all that it is to have.
        libc::free(hint::black_box(libc::malloc(HUGE_PAGE_BYTES)));
        let end = libc::sbrk(0) as usize;
        libc::madvise(
            start as *mut _,
            end.saturating_sub(start),
            libc::MADV_HUGEPAGE,
        );
        libc::mallopt(libc::M_TOP_PAD, HUGE_PAGE_BYTES as libc::c_int);
    }
}

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
    let resident = procfs::field(&status, "VmRSS")?;
    let kib: u64 = resident.strip_suffix("kB")?.trim().parse().ok()?;
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
