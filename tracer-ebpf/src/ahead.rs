//! Ahead: what the next visits of a walk over files read is on its way while this one is made.
//!
//! A walk does little but wait for memory: a file says where its socket lies, which says where its
//! `struct sock` lies. Each step is taken for another file, so that none waits for the one before.
//! What is read is thrown away, and what is no socket's is read all the same: every read is checked.

use crate::{
    globals::offset,
    sock::{load, read_kernel},
};

/// So many descriptors ahead of the one that is visited.
const SOCK: usize = 4;
const SOCKET: usize = 8;
const FILE: usize = 12;

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
    let files: [u64; FILE - SOCK + 1] = read_kernel(descriptors, (fd + SOCK) * size_of::<u64>())?;
    fetch_file(files[FILE - SOCK]);
    fetch_socket(files[SOCKET - SOCK]);
    fetch_sock(files[0])
}

#[inline(always)]
fn fetch_file(file: u64) {
    let _ = socket(file);
    let _: Option<u64> = read_kernel(file, offset!(file_references));
}

#[inline(always)]
fn fetch_socket(file: u64) {
    let _ = sock(file);
}

#[inline(always)]
fn fetch_sock(file: u64) -> Option<()> {
    let sock = sock(file)?;
    let _: Option<u64> = read_kernel(sock, offset!(sock_ports));
    let _: Option<u64> = read_kernel(sock, offset!(sock_protocol));
    Some(())
}

#[inline(always)]
fn socket(file: u64) -> Option<u64> {
    read_kernel(file, offset!(file_private))
}

#[inline(always)]
fn sock(file: u64) -> Option<u64> {
    read_kernel(socket(file)?, offset!(socket_sock))
}
