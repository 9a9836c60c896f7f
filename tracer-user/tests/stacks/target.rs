//! A target: a program built here that stays inside connect until it is killed.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use connleak::stacks::ProcessKey;

const CONNECT_SYSCALL: &str = "42 ";
const PATIENCE: Duration = Duration::from_secs(30);

/// A listener whose queue is full, so that connect waits for an answer that never comes.
pub(crate) struct FullListener {
    listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl FullListener {
    pub(crate) fn open() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        // SAFETY: the descriptor is open for as long as `listener` lives; listen takes no pointers.
        if unsafe { libc::listen(listener.as_raw_fd(), 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let address = listener.local_addr()?;
        let mut queued = Vec::new();
        // The queue holds one more than its length; the first that gets no answer found it full.
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            queued.push(stream);
        }
        Ok(Self {
            listener,
            _queued: queued,
        })
    }

    pub(crate) fn port(&self) -> u16 {
        let address = self.listener.local_addr();
        address.map_or(0, |address| address.port())
    }
}

/// Killed, by its own pid, when dropped.
pub(crate) struct Target {
    child: Child,
}

impl Target {
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.spawn()?;
        Ok(Self { child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn key(&self) -> ProcessKey {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        let stat = stat.expect("the target is alive");
        let after_name = stat.rsplit_once(") ").expect("a name in brackets").1;
        let ticks = after_name.split(' ').nth(19).expect("field 22");
        let ticks: u64 = ticks.parse().expect("a number");
        ProcessKey {
            pid: self.pid(),
            start_time_ns: ticks * 10_000_000,
        }
    }

    /// Waits until one of its threads is inside connect and returns that thread's id.
    pub(crate) fn thread_in_connect(&self) -> u32 {
        let started = Instant::now();
        loop {
            if let Some(thread) = self.find_thread_in_connect() {
                return thread;
            }
            assert!(started.elapsed() < PATIENCE, "no thread came to connect");
            std::thread::yield_now();
        }
    }

    fn find_thread_in_connect(&self) -> Option<u32> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).ok()?;
        threads.flatten().find_map(|thread| {
            let syscall = std::fs::read_to_string(thread.path().join("syscall")).ok()?;
            let inside = syscall.starts_with(CONNECT_SYSCALL);
            inside.then(|| thread.file_name().to_str()?.parse().ok())?
        })
    }

    pub(crate) fn kill(&mut self) {
        // A target that has already ended needs nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.kill();
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/stacks/fixtures")
        .join(name)
}

fn run(command: &mut Command) {
    let status = command.status().expect("the compiler can be run");
    assert!(status.success(), "{command:?} failed");
}

pub(crate) fn build_c(to: &Path, flags: &[&str]) {
    build_c_with("gcc", to, flags);
}

pub(crate) fn build_c_with(compiler: &str, to: &Path, flags: &[&str]) {
    let mut command = Command::new(compiler);
    command.args(["-O2", "-fomit-frame-pointer", "-pthread"]);
    run(command
        .arg(fixture("client.c"))
        .arg("-o")
        .arg(to)
        .args(flags));
}

pub(crate) fn build_rust(to: &Path, flags: &[&str]) {
    let mut command = Command::new("rustc");
    command.args(["--edition", "2021", "-C", "opt-level=3"]);
    run(command
        .arg(fixture("client.rs"))
        .arg("-o")
        .arg(to)
        .args(flags));
}

/// A program whose `main` lies in `library`.
pub(crate) fn build_around(to: &Path, library: &Path) {
    let mut command = Command::new("gcc");
    command
        .args(["-x", "c", "/dev/null", "-x", "none"])
        .arg(library);
    run(command.arg("-o").arg(to));
}

/// Moves the debug information and the symbols of `binary` to `debug`.
pub(crate) fn split_debug(binary: &Path, debug: &Path) {
    run(Command::new("objcopy")
        .arg("--only-keep-debug")
        .arg(binary)
        .arg(debug));
    run(Command::new("strip").arg(binary));
}

/// The line that carries the comment `LINE marker`.
pub(crate) fn marked_line(fixture_name: &str, marker: &str) -> u32 {
    let text = std::fs::read_to_string(fixture(fixture_name)).expect("the fixture");
    let wanted = format!("LINE {marker}");
    let is_marked = |line: &str| {
        line.find(&wanted)
            .is_some_and(|at| !line[at + wanted.len()..].starts_with(|c: char| c.is_alphanumeric()))
    };
    let at = text.lines().position(is_marked).expect("a marked line");
    at as u32 + 1
}
