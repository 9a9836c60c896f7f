//! Every way of connecting a socket, as raw system calls.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::script::{How, RawAddress};
use crate::uring;

/// Connects `fd` to `to` in the given way.
pub fn dial(fd: i32, how: How, to: SocketAddr) -> io::Result<()> {
    let raw = RawAddress::from(to);
    // SAFETY: raw is a valid sockaddr of its length for the call's duration.
    let connect = || check(unsafe { libc::connect(fd, raw.as_ptr(), raw.len()) });
    let send_to = |flags, raw: Option<&RawAddress>| {
        let (at, length) = raw.map_or((std::ptr::null(), 0), |r| (r.as_ptr(), r.len()));
        // SAFETY: one byte of data, and raw as above.
        let sent = unsafe { libc::sendto(fd, b"\n".as_ptr().cast(), 1, flags, at, length) };
        check(sent.min(0) as i32)
    };
    match how {
        How::Connect | How::Mptcp => connect(),
        How::Thread => std::thread::spawn(move || dial(fd, How::Connect, to))
            .join()
            .expect("no panic"),
        How::NonBlocking | How::Undecided => {
            match connect() {
                Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
                done => return done,
            }
            if how == How::Undecided {
                return Ok(());
            }
            let mut poll = libc::pollfd {
                fd,
                events: libc::POLLOUT,
                revents: 0,
            };
            // SAFETY: one pollfd, and its count is 1.
            check(unsafe { libc::poll(&raw mut poll, 1, 30_000) }.min(0))?;
            let errno = option(fd, libc::SOL_SOCKET, libc::SO_ERROR)?;
            if errno == 0 {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(errno))
            }
        }
        How::Uring => uring::connect(fd, &raw, false),
        How::UringAsync => uring::connect(fd, &raw, true),
        How::FastOpen => send_to(libc::MSG_FASTOPEN, Some(&raw)),
        How::SendTo => {
            set_option(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)?;
            connect()?;
            send_to(0, None)
        }
        How::ReusePort { from } => {
            set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
            set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
            let from = RawAddress::from(from);
            // SAFETY: from is a valid sockaddr of its length.
            check(unsafe { libc::bind(fd, from.as_ptr(), from.len()) })?;
            connect()
        }
        How::ShortTimeout => {
            set_option(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 1000)?;
            connect()
        }
    }
}

pub fn set_option(fd: i32, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: value outlives the call and its size is given.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), 4) })
}

fn option(fd: i32, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0i32;
    let mut length = 4;
    // SAFETY: value and length outlive the call and agree.
    check(unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut length) })?;
    Ok(value)
}

/// TCP_INFO's state: the first byte of struct tcp_info.
pub fn state_of(fd: i32) -> Option<u8> {
    let mut state = 0u8;
    let mut length = 1;
    // SAFETY: the kernel writes at most `length` bytes.
    let rc = unsafe {
        libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut length,
        )
    };
    (rc == 0).then_some(state)
}

/// getsockname or getpeername.
pub type NameCall = unsafe extern "C" fn(i32, *mut libc::sockaddr, *mut libc::socklen_t) -> i32;

/// The end of `fd` that `call` names, while it has one.
pub fn end_of(fd: i32, call: NameCall) -> Option<SocketAddr> {
    // SAFETY: zero is a valid sockaddr_storage, and the length given is its size.
    unsafe {
        let mut storage: libc::sockaddr_storage = std::mem::zeroed();
        let mut length = size_of_val(&storage) as libc::socklen_t;
        if call(fd, (&raw mut storage).cast(), &raw mut length) != 0 {
            return None;
        }
        match i32::from(storage.ss_family) {
            libc::AF_INET => {
                let raw = (&raw const storage).cast::<libc::sockaddr_in>().read();
                let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddr::from((ip, u16::from_be(raw.sin_port))))
            }
            libc::AF_INET6 => {
                let raw = (&raw const storage).cast::<libc::sockaddr_in6>().read();
                let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
                Some(SocketAddr::from((ip, u16::from_be(raw.sin6_port))))
            }
            _ => None,
        }
    }
}

/// The outcome of a system call.
pub fn check(rc: i32) -> io::Result<()> {
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
