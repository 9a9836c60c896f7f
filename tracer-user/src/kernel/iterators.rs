//! The iterators: every process's watched sockets, and every one that TCP itself knows.

use std::{
    io::{self, Read},
    os::fd::{AsRawFd, BorrowedFd},
    thread,
};

use aya::{
    Btf, Ebpf,
    programs::{Iter, ProgramError},
};
use bytes::Bytes;

use super::error::{KernelError, root_cause};

/// Which of the kernel's lists to walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// All files of all processes: who holds what.
    OpenFiles,
    /// All sockets that TCP hashes in this network namespace: also those that nobody holds.
    TcpSockets,
}

impl Walk {
    /// (program, what it iterates over)
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::OpenFiles => ("open_files", "task_file"),
            Self::TcpSockets => ("tcp_sockets", "tcp"),
        }
    }
}

/// Walks the list now. The answer is a sequence of `OpenFile`s, for `decode::open_file`.
pub(super) fn run(ebpf: &mut Ebpf, btf: Option<&Btf>, walk: Walk) -> Result<Bytes, KernelError> {
    let (name, over) = walk.names();
    let failed = |error: &(dyn std::error::Error + 'static)| KernelError::Iterator {
        name: over,
        cause: root_cause(error),
    };
    let program: &mut Iter = ebpf
        .program_mut(name)
        .ok_or(ProgramError::UnexpectedProgramType)
        .and_then(TryInto::try_into)
        .map_err(|error| failed(&error))?;
    // Without the types it was loaded before they were given back.
    if let Some(btf) = btf {
        match program.load(over, btf) {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    let link = program
        .attach()
        .and_then(|id| program.take_link(id))
        .map_err(|error| failed(&error))?;
    let mut file = link.into_file().map_err(|error| failed(&error))?;
    let mut lines = Vec::new();
    file.read_to_end(&mut lines)
        .map_err(|error| failed(&error))?;
    Ok(lines.into())
}

/// As [`run`], in another network namespace: `Walk::TcpSockets` lists only its walker's.
pub(super) fn run_in(
    ebpf: &mut Ebpf,
    btf: Option<&Btf>,
    walk: Walk,
    namespace: BorrowedFd<'_>,
) -> Result<Bytes, KernelError> {
    let (_, over) = walk.names();
    let failed = |cause: String| KernelError::Iterator { name: over, cause };
    // A namespace is entered by a thread, and left by ending it.
    thread::scope(|scope| {
        let walker = scope.spawn(|| {
            // SAFETY: the descriptor is open for as long as it is borrowed.
            if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                let error = io::Error::last_os_error();
                return Err(match error.kind() {
                    io::ErrorKind::PermissionDenied => KernelError::NamespaceNotPermitted,
                    _ => failed(error.to_string()),
                });
            }
            run(ebpf, btf, walk)
        });
        walker
            .join()
            .unwrap_or_else(|_| Err(failed("its thread ended early".to_owned())))
    })
}
