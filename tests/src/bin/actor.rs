//! The actor: a process that does what a script says, one operation a datagram, and says truly
//! what it did. Forks of it listen on sockets of their own.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use connleak_tests::datagram::{Datagram, is_served};
use connleak_tests::dial::{check, dial, end_of, state_of};
use connleak_tests::netns;
use connleak_tests::peer::set_linger_zero;
use connleak_tests::script::{Answer, Command, How, Op};

/// The process: its control socket and its fds by the script's name of the socket.
struct Actor {
    folder: PathBuf,
    control: Option<Datagram>,
    sockets: BTreeMap<u32, Vec<i32>>,
}

fn main() {
    // The script's processes outlive their openers; init or the reaper must not see zombies of ours.
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (mut actor, resumed) = match words.as_slice() {
        ["start", folder, name, ..] => {
            let mut actor = Actor {
                folder: folder.into(),
                control: None,
                sockets: BTreeMap::new(),
            };
            actor.bind(name);
            (actor, 0)
        }
        ["resume", folder, control, id, sockets] => {
            let actor = Actor {
                folder: folder.into(),
                control: Some(Datagram::inherited(control.parse().expect("an fd"))),
                sockets: serde_json::from_str(sockets).expect("a table of sockets"),
            };
            (actor, id.parse().expect("an id"))
        }
        _ => panic!("usage: actor start FOLDER NAME [ANYTHING]"),
    };
    actor.answer(resumed, None, Ok(()));
    loop {
        let (command, passed) = actor.receive();
        actor.perform(command, passed);
    }
}

impl Actor {
    fn bind(&mut self, name: &str) {
        if let Some(parents) = &self.control {
            // SAFETY: the parent's control socket, not ours to read.
            unsafe { libc::close(parents.fd()) };
        }
        let control = Datagram::bind(&self.folder.join(name), Duration::from_secs(1));
        self.control = Some(control.expect("a control socket"));
    }

    fn control(&self) -> &Datagram {
        self.control.as_ref().expect("bound at the start")
    }

    fn receive(&self) -> (Command, Option<i32>) {
        loop {
            if let Ok(message) = self.control().receive() {
                return (
                    serde_json::from_slice(&message.bytes).expect("a command"),
                    message.fd,
                );
            }
            // Nobody is left to serve once the harness is gone, however it went.
            if !is_served(&self.folder.join("harness")) {
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
            Op::Fork { child, pid } => {
                // SAFETY: this process has one thread at this point: threads are joined in open.
                match unsafe { fork_as(pid) } {
                    0 => {
                        self.bind(&child);
                        (None, Ok(()))
                    }
                    -1 => (None, Err(io::Error::last_os_error())),
                    _ => return,
                }
            }
            Op::UnsharePids => {
                // SAFETY: affects the children of this process only.
                (None, check(unsafe { libc::unshare(libc::CLONE_NEWPID) }))
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
        if let Some(&fd) = self.sockets.get(&socket).and_then(|fds| fds.last()) {
            return dial(fd, how, to);
        }
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
        if let Err(error) = self.control().keep_over_exec() {
            return error;
        }
        let table = serde_json::to_string(&self.sockets).expect("serializable");
        let words = [
            program.display().to_string(),
            "resume".into(),
            self.folder.display().to_string(),
            self.control().fd().to_string(),
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
        let sent = self.control().send(&self.folder.join(to), bytes, fd);
        if sent.is_err() && to == "harness" {
            std::process::exit(1);
        }
    }
}

/// fork, and where a pid is asked for, clone3 with set_tid: the way a restored process gets its
/// old pid back, here to have one used again at once.
///
/// # Safety
/// This process has one thread.
unsafe fn fork_as(pid: Option<u32>) -> i32 {
    let Some(pid) = pid else {
        // SAFETY: as the caller promises.
        return unsafe { libc::fork() };
    };
    let wanted = [pid as libc::pid_t];
    // struct clone_args up to CLONE_ARGS_SIZE_VER1: flags, pidfd, child_tid, parent_tid,
    // exit_signal, stack, stack_size, tls, set_tid, set_tid_size.
    let arguments: [u64; 10] = [
        0,
        0,
        0,
        0,
        libc::SIGCHLD as u64,
        0,
        0,
        0,
        wanted.as_ptr() as u64,
        1,
    ];
    // SAFETY: the arguments outlive the call; without CLONE_VM the child has a copy of everything.
    let child = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            arguments.as_ptr(),
            size_of_val(&arguments),
        )
    };
    child as i32
}
