//! A network namespace of a test's own, with loopback up.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};

/// Lives as long as this value and the processes in it.
pub struct NetNs {
    file: File,
}

impl NetNs {
    pub fn new() -> Result<Self> {
        // unshare moves the calling thread for good, so a thread that ends at once makes it.
        let file = on_thread(|| {
            // SAFETY: unshare of the network namespace affects this thread only.
            let rc = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            check(rc, "unshare the network namespace")?;
            raise_loopback()?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        })?;
        Ok(Self { file })
    }

    /// A path to it that other processes can open as long as this one lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// The namespace's number, as `readlink /proc/PID/ns/net` shows it.
    pub fn inode(&self) -> Result<u64> {
        use std::os::unix::fs::MetadataExt;
        Ok(self.file.metadata()?.ino())
    }

    /// Runs `work` on a thread inside the namespace: its sockets and children belong there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread(|| {
            enter(&self.file)?;
            work()
        })
    }
}

/// Moves this thread into the namespace of `file`.
pub fn enter(file: &File) -> Result<()> {
    // SAFETY: setns takes a valid fd of a network namespace and affects this thread only.
    check(
        unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) },
        "enter the network namespace",
    )
}

fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        scope
            .spawn(work)
            .join()
            .map_err(|_| anyhow!("a thread in the namespace panicked"))?
    })
}

fn raise_loopback() -> Result<()> {
    // SAFETY: socket, ioctl and close get valid arguments; ifreq is a plain struct, zero is valid.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        check(fd.min(0), "open a socket")?;
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        let rc = libc::ioctl(fd, libc::SIOCSIFFLAGS, &request);
        let result = check(rc, "bring lo up");
        libc::close(fd);
        result
    }
}

fn check(rc: i32, what: &str) -> Result<()> {
    if rc < 0 {
        Err(std::io::Error::last_os_error()).with_context(|| format!("failed to {what}"))
    } else {
        Ok(())
    }
}
