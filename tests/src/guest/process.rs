//! One command with a time limit, run so that nothing of it is left when it is over.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub(super) struct Finished {
    pub(super) end: End,
    /// Of [`run`] the last [`KEPT_BYTES`].
    pub(super) output: Vec<u8>,
    pub(super) duration: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Exited(i32),
    Killed(i32),
    TimedOut,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Exited(code) => write!(f, "exited with {code}"),
            End::Killed(signal) => write!(f, "killed by signal {signal}"),
            End::TimedOut => write!(f, "timed out"),
        }
    }
}

const KEPT_BYTES: usize = 16 * 1024;
const POLL: Duration = Duration::from_millis(5);

/// Runs to the end or the limit, then kills what is left: as PID 1 that is every process there is.
pub(super) fn run(mut command: Command, limit: Duration) -> io::Result<Finished> {
    let started = Instant::now();
    // One pipe for both streams keeps the order in which they were written.
    let (reader, writer) = io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    let child = command.spawn()?.id() as libc::pid_t;
    // It holds the pipe's other end open.
    drop(command);
    let output = std::thread::spawn(move || read_and_show(reader));
    let end = wait(child, started, limit);
    kill_what_is_left(child);
    Ok(Finished {
        end,
        output: output.join().unwrap_or_default(),
        duration: started.elapsed(),
    })
}

/// Runs a command for what it says on standard output.
pub(super) fn capture(mut command: Command, limit: Duration) -> io::Result<Finished> {
    let started = Instant::now();
    let (reader, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer).process_group(0);
    let child = command.spawn()?.id() as libc::pid_t;
    drop(command);
    let output = std::thread::spawn(move || read(reader));
    let end = wait(child, started, limit);
    kill_what_is_left(child);
    Ok(Finished {
        end,
        output: output.join().unwrap_or_default(),
        duration: started.elapsed(),
    })
}

fn wait(child: libc::pid_t, started: Instant, limit: Duration) -> End {
    loop {
        let mut status = 0;
        // SAFETY: writes one int. Any child is asked for, because orphans become ours and must be reaped.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
        if pid == child {
            return if libc::WIFEXITED(status) {
                End::Exited(libc::WEXITSTATUS(status))
            } else {
                End::Killed(libc::WTERMSIG(status))
            };
        }
        if pid > 0 {
            continue;
        }
        if started.elapsed() > limit {
            return End::TimedOut;
        }
        std::thread::sleep(POLL);
    }
}

fn kill_what_is_left(group: libc::pid_t) {
    // SAFETY: as PID 1 every process but this one, under another PID 1 the command's own process group.
    unsafe {
        if std::process::id() == 1 {
            libc::kill(-1, libc::SIGKILL);
        } else {
            libc::kill(-group, libc::SIGKILL);
        }
    }
    // SAFETY: reaps until no child is left; a null status is allowed.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
}

fn read(mut stream: impl Read) -> Vec<u8> {
    let mut whole = Vec::new();
    // What was read before an error is still worth showing.
    drop(stream.read_to_end(&mut whole));
    whole
}

/// Reads a stream to its end, shows it on the console and keeps its last bytes.
fn read_and_show(mut stream: impl Read) -> Vec<u8> {
    let mut tail = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        let chunk = &chunk[..n];
        // The console is for a human; a test must not fail because it could not be written.
        drop(io::stderr().write_all(chunk));
        tail.extend_from_slice(chunk);
        let surplus = tail.len().saturating_sub(KEPT_BYTES);
        tail.drain(..surplus);
    }
    tail
}
