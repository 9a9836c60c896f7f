//! The iterators: every process's watched sockets, and every one that TCP itself knows.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    os::fd::{AsRawFd, BorrowedFd},
    thread,
};

use aya::{
    Btf, Ebpf,
    programs::{Iter, ProgramError},
};
use bytes::Bytes;
use tracer_ebpf::abi::open_file::OpenFile;

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

/// As many bytes as one read of an iterator gives at most (kernel/bpf/bpf_iter.c, `bpf_seq_read`).
const READ_BYTES: usize = 32 * 1024;
/// As many are handed over at once.
const PIECE_BYTES: usize = 8 * READ_BYTES;

/// Walks the list now. The answer is a sequence of `OpenFile`s, for `decode::open_file`.
pub(super) fn run(ebpf: &mut Ebpf, btf: Option<&Btf>, walk: Walk) -> Result<Bytes, KernelError> {
    let mut lines = Vec::new();
    let mut file = open(ebpf, btf, walk)?;
    file.read_to_end(&mut lines)
        .map_err(|error| failed(walk, &error))?;
    Ok(lines.into())
}

/// Walks the list now, and hands over some whole lines at a time.
pub(super) fn run_each(
    ebpf: &mut Ebpf,
    btf: Option<&Btf>,
    walk: Walk,
    mut take: impl FnMut(&[u8]),
) -> Result<(), KernelError> {
    let mut file = open(ebpf, btf, walk)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut filled = 0;
    loop {
        let read = file.read(&mut piece[filled..]);
        let read = read.map_err(|error| failed(walk, &error))?;
        filled += read;
        let is_end = read == 0;
        if is_end || PIECE_BYTES - filled < READ_BYTES {
            let cut = filled % size_of::<OpenFile>();
            take(&piece[..filled - cut]);
            piece.copy_within(filled - cut..filled, 0);
            filled = cut;
        }
        if is_end {
            return match filled {
                0 => Ok(()),
                _ => Err(failed(walk, &io::Error::from(ErrorKind::UnexpectedEof))),
            };
        }
    }
}

fn failed(walk: Walk, error: &(dyn std::error::Error + 'static)) -> KernelError {
    let (_, over) = walk.names();
    KernelError::Iterator {
        name: over,
        cause: root_cause(error),
    }
}

/// A walk that has not begun; reading it is the walk.
fn open(ebpf: &mut Ebpf, btf: Option<&Btf>, walk: Walk) -> Result<File, KernelError> {
    let (name, over) = walk.names();
    let program: &mut Iter = ebpf
        .program_mut(name)
        .ok_or(ProgramError::UnexpectedProgramType)
        .and_then(TryInto::try_into)
        .map_err(|error| failed(walk, &error))?;
    // Without the types it was loaded before they were given back.
    if let Some(btf) = btf {
        match program.load(over, btf) {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
            Err(error) => return Err(failed(walk, &error)),
        }
    }
    let link = program
        .attach()
        .and_then(|id| program.take_link(id))
        .map_err(|error| failed(walk, &error))?;
    link.into_file().map_err(|error| failed(walk, &error))
}

/// As [`run_each`], in another network namespace: `Walk::TcpSockets` lists only its walker's.
pub(super) fn run_each_in(
    ebpf: &mut Ebpf,
    btf: Option<&Btf>,
    walk: Walk,
    namespace: BorrowedFd<'_>,
    take: impl FnMut(&[u8]) + Send,
) -> Result<(), KernelError> {
    let (_, over) = walk.names();
    let failed = |cause: String| KernelError::Iterator { name: over, cause };
    // A namespace is entered by a thread, and left by ending it.
    thread::scope(|scope| {
        let walker = scope.spawn(|| {
            // SAFETY: the descriptor is open for as long as it is borrowed.
            if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                let error = io::Error::last_os_error();
                return Err(match error.kind() {
                    ErrorKind::PermissionDenied => KernelError::NamespaceNotPermitted,
                    _ => failed(error.to_string()),
                });
            }
            run_each(ebpf, btf, walk, take)
        });
        walker
            .join()
            .unwrap_or_else(|_| Err(failed("its thread ended early".to_owned())))
    })
}
