//! A Unix datagram socket at a path: carries operations and answers, fds, and who sent them.
//!
//! A path reaches across network namespaces, which an abstract name does not.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use crate::dial::check;

/// The socket. Not closed when dropped: exec and fork hand it on.
pub struct Datagram {
    fd: RawFd,
}

/// One datagram as it arrived.
pub struct Message {
    pub bytes: Vec<u8>,
    pub fd: Option<RawFd>,
    /// The sender's pid, as this process would name it.
    pub sender: Option<u32>,
}

impl Datagram {
    /// Binds. Receiving waits no longer than `patience`.
    pub fn bind(path: &Path, patience: Duration) -> io::Result<Self> {
        // SAFETY: a plain socket call.
        let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        check(fd.min(0))?;
        let (address, length) = unix_address(path)?;
        // SAFETY: address is a valid sockaddr_un of that length.
        check(unsafe { libc::bind(fd, (&raw const address).cast(), length) })?;
        let wait = libc::timeval {
            tv_sec: patience.as_secs() as libc::time_t,
            tv_usec: 0,
        };
        set(fd, libc::SO_RCVTIMEO, &wait)?;
        set(fd, libc::SO_PASSCRED, &1i32)?;
        Ok(Self { fd })
    }

    /// A socket that an earlier program of this process bound.
    #[must_use]
    pub fn inherited(fd: RawFd) -> Self {
        Self { fd }
    }

    /// Lets the program that this process becomes inherit it.
    pub fn keep_over_exec(&self) -> io::Result<()> {
        // SAFETY: sets a flag of our own fd.
        check(unsafe { libc::fcntl(self.fd, libc::F_SETFD, 0) })
    }

    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    pub fn receive(&self) -> io::Result<Message> {
        let mut bytes = vec![0u8; 8192];
        let mut space = [0u64; 16];
        let mut part = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: zero is a valid msghdr; its pointers outlive the calls; control messages are
        // walked with the kernel's own lengths.
        unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            message.msg_control = space.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&space);
            let mut length = libc::recvmsg(self.fd, &raw mut message, 0);
            // With a timeout set, no signal lets recvmsg go on by itself.
            while length < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
                length = libc::recvmsg(self.fd, &raw mut message, 0);
            }
            if length < 0 {
                return Err(io::Error::last_os_error());
            }
            bytes.truncate(length as usize);
            let (mut fd, mut sender) = (None, None);
            let mut header = libc::CMSG_FIRSTHDR(&raw const message);
            while !header.is_null() {
                let at = libc::CMSG_DATA(header);
                match (*header).cmsg_type {
                    libc::SCM_RIGHTS => fd = Some(at.cast::<i32>().read_unaligned()),
                    libc::SCM_CREDENTIALS => {
                        sender = Some(at.cast::<libc::ucred>().read_unaligned().pid as u32);
                    }
                    _ => {}
                }
                header = libc::CMSG_NXTHDR(&raw const message, header);
            }
            Ok(Message { bytes, fd, sender })
        }
    }

    pub fn send(&self, to: &Path, bytes: &[u8], fd: Option<RawFd>) -> io::Result<()> {
        let (mut address, length) = unix_address(to)?;
        let mut part = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let mut space = [0u64; 8];
        // SAFETY: zero is a valid msghdr; its pointers outlive the call; space holds one fd.
        let sent = unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_name = (&raw mut address).cast();
            message.msg_namelen = length;
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            if let Some(fd) = fd {
                message.msg_control = space.as_mut_ptr().cast();
                message.msg_controllen = libc::CMSG_SPACE(size_of::<i32>() as u32) as usize;
                let header = libc::CMSG_FIRSTHDR(&raw const message);
                (*header).cmsg_level = libc::SOL_SOCKET;
                (*header).cmsg_type = libc::SCM_RIGHTS;
                (*header).cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as usize;
                libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd);
            }
            libc::sendmsg(self.fd, &raw const message, 0)
        };
        check(sent.min(0) as i32)
    }
}

/// Whether somebody still receives at `path`.
#[must_use]
pub fn is_served(path: &Path) -> bool {
    let Ok((address, length)) = unix_address(path) else {
        return false;
    };
    // SAFETY: the address is valid for its length, and the fd is closed again.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0);
        let served = libc::connect(fd, (&raw const address).cast(), length) == 0;
        libc::close(fd);
        served
    }
}

fn set<T>(fd: RawFd, option: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: value outlives the call and its size is given.
    check(unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            length,
        )
    })
}

fn unix_address(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    // SAFETY: zero is a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= address.sun_path.len() {
        return Err(io::Error::other("the folder's path is too long"));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok((address, size_of::<libc::sockaddr_un>() as libc::socklen_t))
}
