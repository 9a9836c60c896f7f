//! Ahead: what the next visits of a walk over files read is on its way while this one is made.
//!
//! A walk does little but wait for memory: a file says where its socket lies, which says where its
//! `struct sock` lies. Each step is taken for another file, so that none waits for the one before.
//! What is no socket's is read all the same, and so is what a visit of another process's table has left
//! here: every read is checked, and nothing but time depends on it.

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
    let file: u64 = read_kernel(descriptors, (fd + FILE) * size_of::<u64>())?;
    kept.sockets[(fd + FILE) % KEPT] = read_kernel(file, offset!(file_private)).unwrap_or(0);
    let _: Option<u64> = read_kernel(file, offset!(file_references));
    let socket = kept.sockets[(fd + SOCKET) % KEPT];
    kept.socks[(fd + SOCKET) % KEPT] = read_kernel(socket, offset!(socket_sock)).unwrap_or(0);
    let sock = kept.socks[(fd + SOCK) % KEPT];
    let _: Option<u64> = read_kernel(sock, offset!(sock_ports));
    let _: Option<u64> = read_kernel(sock, offset!(sock_protocol));
    Some(())
}
