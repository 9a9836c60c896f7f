//! One command with a time limit, run so that nothing of it is left when it is over.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(super) struct Finished {
    pub(super) end: End,
    pub(super) stdout: Vec<u8>,
    /// Both streams as they came, the last [`KEPT_BYTES`] of them.
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
pub(super) fn run(command: &mut Command, limit: Duration) -> io::Result<Finished> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let tail = Arc::new(Mutex::new(Vec::new()));
    let stdout = child.stdout.take().map(|s| read_in_thread(s, &tail));
    let stderr = child.stderr.take().map(|s| read_in_thread(s, &tail));
    let end = wait(child.id() as libc::pid_t, started, limit);
    kill_what_is_left(child.id() as libc::pid_t);
    let stdout = stdout.map(join).unwrap_or_default();
    stderr.map(join);
    let output = std::mem::take(&mut *tail.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Finished {
        end,
        stdout,
        output,
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

/// Reads a stream to its end, shows it on the console and keeps its last bytes.
fn read_in_thread(
    mut stream: impl Read + Send + 'static,
    tail: &Arc<Mutex<Vec<u8>>>,
) -> JoinHandle<Vec<u8>> {
    let tail = Arc::clone(tail);
    std::thread::spawn(move || {
        let mut whole = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut chunk) {
            let chunk = &chunk[..n];
            whole.extend_from_slice(chunk);
            let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
            tail.extend_from_slice(chunk);
            let surplus = tail.len().saturating_sub(KEPT_BYTES);
            tail.drain(..surplus);
            // The console is for a human; a test must not fail because it could not be written.
            drop(io::stderr().write_all(chunk));
        }
        whole
    })
}

fn join(reader: JoinHandle<Vec<u8>>) -> Vec<u8> {
    reader.join().unwrap_or_default()
}
