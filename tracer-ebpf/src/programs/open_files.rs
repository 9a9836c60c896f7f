//! open files: iterators over every process's files, and over every socket that TCP hashes.
//!
//! The first says who holds what now. The second finds what no process holds: sockets still in
//! a listener's queue, orphans, sockets that travel in a message (SCM_RIGHTS).

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{BPF_NOEXIST, seq_file},
    helpers::generated::{
        bpf_jiffies64, bpf_ktime_get_boot_ns, bpf_ktime_get_ns, bpf_seq_write, bpf_skc_to_tcp_sock,
        bpf_sock_from_file,
    },
};
use tracer_ebpf::abi::{
    counters::Counter,
    open_file::OpenFile,
    socket::{SEEDED, SERVER_END, SocketRecord, TrackedSocket},
};

use crate::{
    ahead, filter,
    globals::{config, offset},
    maps::{SOCKETS, count},
    record, slot,
    sock::{
        AF_INET, AF_INET6, Sock, SockArgument, SockFields, TCP_CLOSE, TCP_LISTEN, TCP_NEW_SYN_RECV,
        TCP_SYN_RECV, TCP_TIME_WAIT, load, read_kernel,
    },
    task::Task,
};

/// include/uapi/linux/stat.h
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

/// No hook takes this long from its record to the socket's own state.
const SETTLED_NS: u64 = 50_000_000;

/// Puts one field of a line. Zeroes that are written over would be written by a call, byte by byte.
macro_rules! put {
    ($line:ident . $field:ident = $value:expr) => {{
        let value = $value;
        // SAFETY: a field of a line on our stack, which need not be initialised to be written.
        unsafe { (&raw mut (*$line.as_mut_ptr()).$field).write(value) }
    }};
}

#[repr(C)]
struct IterMeta {
    seq: *mut seq_file,
}

/// `struct bpf_iter__task_file`, kernel/bpf/task_iter.c (5.8).
#[repr(C)]
pub(crate) struct TaskFileContext {
    meta: *const IterMeta,
    task: u64,
    fd: u32,
    file: u64,
}

/// `struct bpf_iter__tcp`, net/ipv4/tcp_ipv4.c (5.9).
#[repr(C)]
pub(crate) struct TcpContext {
    meta: *const IterMeta,
    sock: u64,
    uid: u32,
}

const _: () = {
    assert!(core::mem::offset_of!(TaskFileContext, fd) == 16);
    assert!(core::mem::offset_of!(TaskFileContext, file) == 24);
};

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn open_files(ctx: *const TaskFileContext) -> i32 {
    // SAFETY: the kernel passes a valid context; its pointers are NULL at the end of the walk.
    let (meta, task, fd, file) = unsafe { ((*ctx).meta, (*ctx).task, (*ctx).fd, (*ctx).file) };
    if task == 0 || file == 0 {
        return 0;
    }
    if config!(has_sock_from_file) != 0 {
        super::done!(typed_open_file(meta, task, fd, file))
    } else {
        super::done!(open_file(meta, Task::at(task), fd, file))
    }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
extern "C" fn tcp_sockets(ctx: *const TcpContext) -> i32 {
    // SAFETY: as above.
    let (meta, sock) = unsafe { ((*ctx).meta, (*ctx).sock) };
    if sock == 0 {
        return 0;
    }
    if config!(has_sock_from_file) != 0 {
        super::done!(typed(sock).and_then(|sock| list(meta, sock, None)))
    } else {
        super::done!(list(meta, Sock(sock), None))
    }
}

/// A socket of which the verifier knows the type, as that of TCP: all of its fields are then loaded,
/// without the call of a helper for each. `None` of another protocol, and of what is no full socket.
#[inline(always)]
fn typed(sock: u64) -> Option<SockArgument> {
    // SAFETY: the helper only looks at the socket, and returns NULL or the same address.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sock as *mut c_void) };
    if tcp.is_null() {
        return None;
    }
    // SAFETY: a helper returned it.
    Some(unsafe { SockArgument::new(tcp as u64) })
}

/// As [`open_file`], where the verifier knows the type of everything on the way.
#[inline(always)]
fn typed_open_file(meta: *const IterMeta, task: u64, fd: u32, file: u64) -> Option<()> {
    let _ = ahead::fetch(task, fd);
    // SAFETY: the helper only looks at the file that the iterator hands over.
    let socket = unsafe { bpf_sock_from_file(file as *mut _) } as u64;
    if socket == 0 {
        return None;
    }
    // SAFETY: the verifier knows the type of the iterator's own file.
    let _ = unsafe { ahead::learn(file) };
    let offset = offset!(socket_sock);
    // SAFETY: a helper returned it; NULL before the socket has a protocol, which `typed` looks at.
    let sock = typed(unsafe { load(socket, offset) })?;
    let family = sock.family()?;
    if family != AF_INET && family != AF_INET6 {
        return None;
    }
    // SAFETY: an argument of the iterator.
    let task = unsafe { Task::typed(task) };
    list(meta, sock, Some(Held { task, fd }))
}

/// Who holds it, and as which descriptor.
#[derive(Clone, Copy)]
struct Held {
    task: Task,
    fd: u32,
}

#[inline(always)]
fn open_file(meta: *const IterMeta, task: Task, fd: u32, file: u64) -> Option<()> {
    // `bpf_sock_from_file` came with 5.11; this is what it does, on 5.10 too.
    let inode: u64 = read_kernel(file, offset!(file_inode))?;
    let mode: u16 = read_kernel(inode, offset!(inode_mode))?;
    if mode & S_IFMT != S_IFSOCK {
        return None;
    }
    // NULL where a path was opened with O_PATH on a unix socket's inode.
    let socket: u64 = read_kernel(file, offset!(file_private))?;
    if socket == 0 {
        return None;
    }
    let sock = Sock(read_kernel(socket, offset!(socket_sock))?);
    if sock.0 == 0 {
        return None;
    }
    let family = sock.family()?;
    if family != AF_INET && family != AF_INET6 {
        return None;
    }
    if !sock.is_tcp() {
        return None;
    }
    list(meta, sock, Some(Held { task, fd }))
}

#[inline(always)]
fn list(meta: *const IterMeta, sock: impl SockFields, held: Option<Held>) -> Option<()> {
    let state = sock.state()?;
    // The first two are no full `struct sock`; the third becomes ESTABLISHED within the softirq
    // that made it, and only the state hook knows that moment.
    if matches!(state, TCP_TIME_WAIT | TCP_NEW_SYN_RECV | TCP_SYN_RECV) {
        return None;
    }
    let matched = filter::watched(sock)?;
    let family = sock.family()?;
    let netns = sock.netns()?;
    let mut line = MaybeUninit::<OpenFile>::uninit();
    put!(line.socket = sock.address());
    put!(line.reserved = 0);
    put!(line.netns = netns);
    put!(line.family = family);
    put!(line.local_port = matched.local_port);
    put!(line.remote_port = matched.remote_port);
    put!(line.state = state);
    put!(line.padding = 0);
    put!(line.local_addr = sock.local_address(family));
    put!(line.remote_addr = sock.remote_address(family));
    put_holder(&mut line, held);
    // Nobody asks it of a server end, and it lies far behind what was read so far.
    let is_told = state != TCP_LISTEN && !matched.server_end;
    put_traffic(&mut line, is_told.then_some(sock))?;
    // SAFETY: each of its fields was put.
    let line = unsafe { line.assume_init_mut() };
    if state != TCP_LISTEN && config!(seed) != 0 {
        seed(line, matched.server_end);
    }
    // SAFETY: the iterator's own seq file, and a line of the given size on our stack.
    unsafe {
        bpf_seq_write(
            (*meta).seq,
            (&raw mut *line).cast(),
            size_of::<OpenFile>() as u32,
        );
    }
    Some(())
}

#[inline(always)]
fn put_holder(line: &mut MaybeUninit<OpenFile>, held: Option<Held>) {
    if let Some(Held { task, fd }) = held {
        put!(line.holder_start_ns = task.process_start_ns());
        put!(line.holder_tgid = task.tgid());
        put!(line.fd = fd);
        put!(line.holder_comm = task.comm());
    } else {
        put!(line.holder_start_ns = 0);
        put!(line.holder_tgid = 0);
        put!(line.fd = 0);
        put!(line.holder_comm = [0; 16]);
    }
}

/// What went through it, and when; zeroes of `None`.
#[inline(always)]
fn put_traffic(line: &mut MaybeUninit<OpenFile>, sock: Option<impl SockFields>) -> Option<()> {
    let Some(sock) = sock else {
        put!(line.receive_queue_bytes = 0);
        put!(line.send_queue_bytes = 0);
        put!(line.bytes_received = 0);
        put!(line.bytes_sent = 0);
        put!(line.jiffies = 0);
        put!(line.monotonic_ns = 0);
        put!(line.idle_jiffies = 0);
        return Some(());
    };
    let received: u32 = sock.read(offset!(tcp_received_next))?;
    let copied: u32 = sock.read(offset!(tcp_copied))?;
    let written: u32 = sock.read(offset!(tcp_written))?;
    let acknowledged: u32 = sock.read(offset!(tcp_acknowledged))?;
    put!(line.receive_queue_bytes = received.wrapping_sub(copied));
    put!(line.send_queue_bytes = written.wrapping_sub(acknowledged));
    put!(line.bytes_received = sock.read(offset!(tcp_bytes_received))?);
    put!(line.bytes_sent = sock.read(offset!(tcp_bytes_sent))?);
    // SAFETY: the helpers only read clocks.
    let (jiffies, monotonic_ns) = unsafe { (bpf_jiffies64(), bpf_ktime_get_ns()) };
    put!(line.jiffies = jiffies);
    put!(line.monotonic_ns = monotonic_ns);
    let now = jiffies as u32;
    let since_send = now.wrapping_sub(sock.read(offset!(tcp_last_send))?);
    let since_receive = now.wrapping_sub(sock.read(offset!(icsk_last_receive))?);
    put!(line.idle_jiffies = since_send.min(since_receive));
    Some(())
}

/// Adds a socket that is older than tracing. The iterator holds its file (or its hash bucket), so
/// it cannot be destroyed in between: no entry is left over.
#[inline(always)]
fn seed(line: &OpenFile, server_end: bool) {
    if let Some(tracked) = record::of(line.socket) {
        // SAFETY: the value's memory outlives the program's run.
        correct(unsafe { &raw mut (*tracked).record }, line);
        return;
    }
    let mut record = SocketRecord::ZERO;
    record.flags = if server_end {
        SEEDED | SERVER_END
    } else {
        SEEDED
    };
    record.state = line.state;
    record.family = line.family;
    record.netns = line.netns;
    record.local_port = line.local_port;
    record.remote_port = line.remote_port;
    record.local_addr = line.local_addr;
    record.remote_addr = line.remote_addr;
    let tracked = TrackedSocket {
        record,
        ..TrackedSocket::ZERO
    };
    if let Some(slot) = slot::of(line.socket) {
        // Before SYN_SENT a hook may be about to begin a record there. In any later state it has.
        if line.state != TCP_CLOSE {
            // SAFETY: it is vacant, and no hook begins or ends a record there: the first has run, and
            // the file is held.
            unsafe { slot::seed(slot, &tracked) };
        }
        return;
    }
    // Fails if a hook was first, which knows better, or if the map is full.
    if SOCKETS
        .insert(line.socket, tracked, u64::from(BPF_NOEXIST))
        .is_err()
        && SOCKETS.get_ptr(line.socket).is_none()
    {
        count(Counter::MapFull);
    }
}

/// Sets a record right whose state hook was missed, by attaching just then or as another program
/// ran on that CPU. Userspace counts it when it compares its table with the record.
#[inline(always)]
fn correct(record: *mut SocketRecord, line: &OpenFile) {
    // SAFETY: the value's memory outlives the program's run, even if the entry is removed.
    unsafe {
        if (*record).state == line.state {
            return;
        }
        // The hook runs before the state changes (net/core/sock.c, inet_sk_state_store): what is
        // young may be right already, and the line is older.
        let changed_ns = (*record).changed_ns;
        let now_ns = bpf_ktime_get_boot_ns();
        if now_ns - changed_ns > SETTLED_NS {
            (*record).state = line.state;
            (*record).changed_ns = now_ns;
        }
    }
}
