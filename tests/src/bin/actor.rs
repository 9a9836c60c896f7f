//! The actor: a process that does what a script says, one operation a datagram, and says truly
//! what it did. Forks of it listen on sockets of their own.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use connleak_tests::dial::{check, dial, end_of, state_of};
use connleak_tests::netns;
use connleak_tests::peer::set_linger_zero;
use connleak_tests::script::{Answer, Command, How, Op};

/// The process: its control socket and its fds by the script's name of the socket.
struct Actor {
    folder: PathBuf,
    harness_pid: i32,
    control: i32,
    sockets: BTreeMap<u32, Vec<i32>>,
}

fn main() {
    // The script's processes outlive their openers; init or the reaper must not see zombies of ours.
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (mut actor, resumed) = match words.as_slice() {
        ["start", folder, name, harness_pid, ..] => {
            let mut actor = Actor {
                folder: folder.into(),
                harness_pid: harness_pid.parse().expect("a pid"),
                control: -1,
                sockets: BTreeMap::new(),
            };
            actor.bind(name);
            (actor, 0)
        }
        ["resume", folder, harness_pid, control, id, sockets] => {
            let actor = Actor {
                folder: folder.into(),
                harness_pid: harness_pid.parse().expect("a pid"),
                control: control.parse().expect("an fd"),
                sockets: serde_json::from_str(sockets).expect("a table of sockets"),
            };
            (actor, id.parse().expect("an id"))
        }
        _ => panic!("usage: actor start FOLDER NAME HARNESS_PID [ANYTHING]"),
    };
    actor.answer(resumed, None, Ok(()));
    loop {
        let (command, passed) = actor.receive();
        actor.perform(command, passed);
    }
}

impl Actor {
    fn bind(&mut self, name: &str) {
        if self.control >= 0 {
            // SAFETY: the parent's control socket, not ours to read.
            unsafe { libc::close(self.control) };
        }
        // SAFETY: a plain socket call, checked below. No CLOEXEC: exec keeps it.
        self.control = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0) };
        assert!(self.control >= 0, "failed to open the control socket");
        let (address, length) = unix_address(&self.folder.join(name));
        // SAFETY: address is a valid sockaddr_un of that length.
        let rc = unsafe { libc::bind(self.control, (&raw const address).cast(), length) };
        assert!(
            rc == 0,
            "failed to bind {name}: {}",
            io::Error::last_os_error()
        );
        let wait = libc::timeval {
            tv_sec: 1,
            tv_usec: 0,
        };
        // SAFETY: wait outlives the call and its size is given.
        unsafe {
            libc::setsockopt(
                self.control,
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const wait).cast(),
                size_of::<libc::timeval>() as u32,
            )
        };
    }

    fn receive(&self) -> (Command, Option<i32>) {
        loop {
            let mut bytes = [0u8; 4096];
            let mut space = [0u64; 8];
            let mut part = libc::iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: bytes.len(),
            };
            // SAFETY: zero is a valid msghdr; its pointers outlive the call.
            let (length, passed) = unsafe {
                let mut message: libc::msghdr = std::mem::zeroed();
                message.msg_iov = &raw mut part;
                message.msg_iovlen = 1;
                message.msg_control = space.as_mut_ptr().cast();
                message.msg_controllen = size_of_val(&space);
                let length = libc::recvmsg(self.control, &raw mut message, 0);
                let header = libc::CMSG_FIRSTHDR(&raw const message);
                let passed = (length > 0 && !header.is_null())
                    .then(|| libc::CMSG_DATA(header).cast::<i32>().read_unaligned());
                (length, passed)
            };
            if length > 0 {
                let command = serde_json::from_slice(&bytes[..length as usize]).expect("a command");
                return (command, passed);
            }
            // SAFETY: signal 0 only asks whether the harness lives; nobody is left to serve if not.
            if unsafe { libc::kill(self.harness_pid, 0) } != 0 {
                std::process::exit(1);
            }
        }
    }

    fn perform(&mut self, command: Command, passed: Option<i32>) {
        let id = command.id;
        let (socket, result) = match command.op {
            Op::Open { socket, how, to } => (Some(socket), self.open(socket, how, to)),
            Op::Look { socket } => (Some(socket), Ok(())),
            Op::Dup { socket } => (Some(socket), self.dup(socket)),
            Op::Close { socket } => {
                let fd = self
                    .sockets
                    .get_mut(&socket)
                    .and_then(Vec::pop)
                    .expect("an open socket");
                // SAFETY: the fd is ours and forgotten.
                (Some(socket), check(unsafe { libc::close(fd) }))
            }
            Op::Abort { socket } => {
                let fds = self.sockets.remove(&socket).expect("an open socket");
                let result = set_linger_zero(fds[0]).map_err(io::Error::other);
                for fd in fds {
                    // SAFETY: the fd is ours and forgotten.
                    unsafe { libc::close(fd) };
                }
                (Some(socket), result)
            }
            Op::HalfClose { socket } => {
                // SAFETY: the fd is ours.
                let rc = unsafe { libc::shutdown(self.fd(socket), libc::SHUT_WR) };
                (Some(socket), check(rc))
            }
            Op::Pass { socket, to } => match passed {
                Some(fd) => {
                    self.sockets.entry(socket).or_default().push(fd);
                    (Some(socket), Ok(()))
                }
                None => {
                    let bytes = serde_json::to_vec(&Command {
                        id,
                        op: Op::Pass {
                            socket,
                            to: to.clone(),
                        },
                    });
                    self.send(&to, &bytes.expect("serializable"), Some(self.fd(socket)));
                    return;
                }
            },
            Op::Fork { child } => {
                // SAFETY: this process has one thread at this point: threads are joined in open.
                match unsafe { libc::fork() } {
                    0 => {
                        self.bind(&child);
                        (None, Ok(()))
                    }
                    -1 => (None, Err(io::Error::last_os_error())),
                    _ => return,
                }
            }
            Op::Exec { program } => (None, Err(self.exec(id, &program))),
            Op::Name { mut bytes } => {
                bytes.push(0);
                // SAFETY: bytes is a terminated string.
                (
                    None,
                    check(unsafe { libc::prctl(libc::PR_SET_NAME, bytes.as_ptr()) }),
                )
            }
            Op::EnterNetNs { path } => {
                let entered = std::fs::File::open(path).map(|f| netns::enter(&f));
                (None, entered.and_then(|r| r.map_err(io::Error::other)))
            }
            Op::Exit => {
                self.answer(id, None, Ok(()));
                // SAFETY: no destructor of ours needs to run.
                unsafe { libc::_exit(0) };
            }
            Op::Ping => (None, Ok(())),
        };
        self.answer(id, socket, result);
    }

    fn fd(&self, socket: u32) -> i32 {
        *self
            .sockets
            .get(&socket)
            .and_then(|fds| fds.last())
            .expect("an open socket")
    }

    fn dup(&mut self, socket: u32) -> io::Result<()> {
        // SAFETY: the fd is ours.
        let fd = unsafe { libc::dup(self.fd(socket)) };
        check(fd.min(0))?;
        self.sockets.entry(socket).or_default().push(fd);
        Ok(())
    }

    fn open(&mut self, socket: u32, how: How, to: SocketAddr) -> io::Result<()> {
        let domain = if to.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        let kind = match how {
            How::NonBlocking | How::Undecided => libc::SOCK_STREAM | libc::SOCK_NONBLOCK,
            _ => libc::SOCK_STREAM,
        };
        let protocol = if how == How::Mptcp {
            libc::IPPROTO_MPTCP
        } else {
            libc::IPPROTO_TCP
        };
        // SAFETY: a plain socket call. No CLOEXEC: exec keeps it.
        let fd = unsafe { libc::socket(domain, kind, protocol) };
        check(fd.min(0))?;
        // A failed connect leaves the socket with us: that is part of the truth.
        self.sockets.entry(socket).or_default().push(fd);
        dial(fd, how, to)
    }

    fn exec(&self, id: u64, program: &Path) -> io::Error {
        let table = serde_json::to_string(&self.sockets).expect("serializable");
        let words = [
            program.display().to_string(),
            "resume".into(),
            self.folder.display().to_string(),
            self.harness_pid.to_string(),
            self.control.to_string(),
            id.to_string(),
            table,
        ];
        let words: Vec<CString> = words.map(|w| CString::new(w).expect("no NUL")).into();
        let mut pointers: Vec<*const libc::c_char> = words.iter().map(|w| w.as_ptr()).collect();
        pointers.push(std::ptr::null());
        // SAFETY: both arguments are terminated and outlive the call.
        unsafe { libc::execv(pointers[0], pointers.as_ptr()) };
        io::Error::last_os_error()
    }

    fn answer(&self, id: u64, socket: Option<u32>, result: io::Result<()>) {
        let fds = socket
            .and_then(|s| self.sockets.get(&s))
            .cloned()
            .unwrap_or_default();
        let name = |call| fds.last().and_then(|fd| end_of(*fd, call));
        let answer = Answer {
            id,
            pid: std::process::id(),
            local: name(libc::getsockname),
            remote: name(libc::getpeername),
            state: fds.last().and_then(|fd| state_of(*fd)),
            fds,
            errno: result.err().map(|e| e.raw_os_error().unwrap_or(-1)),
        };
        self.send(
            "harness",
            &serde_json::to_vec(&answer).expect("serializable"),
            None,
        );
    }

    fn send(&self, to: &str, bytes: &[u8], fd: Option<i32>) {
        let (mut address, length) = unix_address(&self.folder.join(to));
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
            libc::sendmsg(self.control, &raw const message, 0)
        };
        if sent < 0 && to == "harness" {
            std::process::exit(1);
        }
    }
}

fn unix_address(path: &Path) -> (libc::sockaddr_un, libc::socklen_t) {
    // SAFETY: zero is a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    assert!(
        bytes.len() < address.sun_path.len(),
        "the folder's path is too long"
    );
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    (address, size_of::<libc::sockaddr_un>() as libc::socklen_t)
}
