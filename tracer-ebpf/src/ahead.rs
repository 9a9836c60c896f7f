//! Ahead: what the next visits of a walk over files read is on its way while this one is made.
//!
//! A walk does little but wait for memory: a file says where its socket lies, which says where its
//! `struct sock` lies. Each step is taken for another file, so that none waits for the one before.
//! Every read is checked, and nothing but time depends on it.
//!
//! Only the files of sockets are followed, and only while their process is visited. What other files
//! point to is their drivers' own, and may lead on to a device's registers, where a read alone can
//! change something.

use aya_ebpf::{macros::map, maps::Array};

use crate::{
    globals::offset,
    sock::{load, read_kernel},
};

/// So many descriptors ahead of the one that is visited.
const SOCK: usize = 4;
const SOCKET: usize = 8;
const FILE: usize = 12;
/// More than the farthest; a power of two.
const KEPT: usize = 16;

/// What the visits before have read, by descriptor: a call that reads a word again takes as long as
/// one that waits for it.
#[repr(C)]
struct Kept {
    /// `socket_file_ops`, since a visit has found a socket.
    operations: u64,
    /// Whose descriptors these are.
    task: u64,
    sockets: [u64; KEPT],
    socks: [u64; KEPT],
}

/// Bound: one. Written and read here, by one walk at a time; two would make each other slow.
#[map]
static AHEAD: Array<Kept> = Array::with_max_entries(1, 0);

/// `task` is the iterator's own argument, and `fd` what it visits.
#[inline(always)]
pub(crate) fn fetch(task: u64, fd: u32) -> Option<()> {
    let (of_files, of_table) = (offset!(task_files), offset!(files_table));
    let (of_max, of_fd) = (offset!(table_max), offset!(table_fd));
    // SAFETY: the verifier knows the types of a task and of what is read from it.
    let (max, descriptors) = unsafe {
        let table: u64 = load(load(task, of_files), of_table);
        (load::<u32>(table, of_max), load::<u64>(table, of_fd))
    };
    let fd = fd as usize;
    if fd + FILE >= max as usize {
        return None;
    }
    // SAFETY: a value of the map outlives the program's run.
    let kept = unsafe { &mut *AHEAD.get_ptr_mut(0)? };
    if kept.task != task {
        kept.forget(task);
    }
    let file: u64 = read_kernel(descriptors, (fd + FILE) * size_of::<u64>())?;
    kept.sockets[(fd + FILE) % KEPT] = kept.socket_of(file).unwrap_or(0);
    let _: Option<u64> = read_kernel(file, offset!(file_references));
    let socket = kept.sockets[(fd + SOCKET) % KEPT];
    let sock = match socket {
        0 => 0,
        socket => read_kernel(socket, offset!(socket_sock)).unwrap_or(0),
    };
    kept.socks[(fd + SOCKET) % KEPT] = sock;
    let sock = kept.socks[(fd + SOCK) % KEPT];
    if sock != 0 {
        let _: Option<u64> = read_kernel(sock, offset!(sock_ports));
        let _: Option<u64> = read_kernel(sock, offset!(sock_protocol));
    }
    Some(())
}

/// The file of a socket was visited: what sockets' files are known by.
///
/// # Safety
///
/// The verifier knows the type of `file`.
#[inline(always)]
pub(crate) unsafe fn learn(file: u64) -> Option<()> {
    let of_operations = offset!(file_operations);
    // SAFETY: the caller's promise; and a value of the map outlives the program's run.
    let (operations, kept) = unsafe { (load(file, of_operations), &mut *AHEAD.get_ptr_mut(0)?) };
    if kept.operations != operations {
        kept.operations = operations;
    }
    Some(())
}

impl Kept {
    /// The socket of a file; `None` of a file that is no socket's, or of which it is not known.
    #[inline(always)]
    fn socket_of(&self, file: u64) -> Option<u64> {
        let (of_operations, of_private) = (offset!(file_operations), offset!(file_private));
        // One call where they lie as in 6.12 and later.
        if of_operations + 2 * size_of::<u64>() == of_private {
            let [operations, _, private]: [u64; 3] = read_kernel(file, of_operations)?;
            return (operations == self.operations).then_some(private);
        }
        let operations: u64 = read_kernel(file, of_operations)?;
        if operations != self.operations {
            return None;
        }
        read_kernel(file, of_private)
    }

    /// What is left of another process's sockets may be anything by now.
    #[inline(always)]
    fn forget(&mut self, task: u64) {
        self.task = task;
        for place in 0..KEPT {
            // Volatile, else a call would do it.
            // SAFETY: places of this very value.
            unsafe {
                (&raw mut self.sockets[place]).write_volatile(0);
                (&raw mut self.socks[place]).write_volatile(0);
            }
        }
    }
}
