//! What a daemon keeps of each socket, in bytes.
//!
//! A program of its own: it counts every allocation.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicIsize, Ordering::Relaxed},
    },
};

use connleak::{
    accounting::{Groups, Owner, RunningCounts},
    config::Verdicts,
    decode::{
        open_file::{Holder, OpenFile},
        socket::{Comm, End, Opener, Socket, SocketId, TcpState},
    },
    process::ProcessKey,
    sockets::SocketTable,
    stacks::{Site, Stack},
};

struct Counting;

static HELD_BYTES: AtomicIsize = AtomicIsize::new(0);

/// What malloc adds to a small piece, and how it rounds it (glibc, malloc/malloc.c).
fn taken(layout: Layout) -> isize {
    let bytes = (layout.size() + 8).next_multiple_of(16).max(32);
    isize::try_from(bytes).expect("no allocation is that large")
}

// SAFETY: it is the system's, and only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD_BYTES.fetch_add(taken(layout), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD_BYTES.fetch_sub(taken(layout), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// As many as the bench of peers opens, both ends on one host.
const SOCKETS: u32 = 100_000;
/// The bench allows 400, of which the pages of allocations and what a reconcile leaves are a part.
const MOST_BYTES: isize = 320;

fn socket(number: u32, end: End, process: ProcessKey, v6: bool) -> Socket {
    let [_, a, b, c] = (number / 2).to_be_bytes();
    let near = match v6 {
        true => format!("[2001:db8::{a}:{b}:{c}]:40000"),
        false => format!("10.{a}.{b}.{c}:40000"),
    };
    let far = match v6 {
        true => "[2001:db8::1]:6379",
        false => "192.0.2.1:6379",
    };
    let (near, far) = (near.parse().expect("IP"), far.parse().expect("IP"));
    let (local, remote) = match end {
        End::Client => (near, far),
        End::Server => (far, near),
    };
    Socket {
        id: SocketId(0xffff_8880_0000_0000 + u64::from(number) * 2432),
        end,
        state: TcpState::Established,
        local,
        remote,
        netns: 4_026_531_840,
        opener: Some(Opener {
            process,
            tid: process.pid,
            uid: 1000,
            comm: Comm(*b"a process's name"),
        }),
        opened_ns: Some(u64::from(number) + 1),
        established_ns: Some(u64::from(number) + 2),
        released_ns: None,
        changed_ns: Some(u64::from(number) + 2),
        own: false,
        let_go: false,
        abandoned: false,
        no_stack: None,
    }
}

fn held_by(socket: &Socket, process: ProcessKey, fd: u32) -> OpenFile {
    OpenFile {
        id: socket.id,
        end: socket.end,
        state: socket.state,
        local: socket.local,
        remote: socket.remote,
        netns: socket.netns,
        holder: Some(Holder {
            process,
            fd,
            comm: Comm::default(),
        }),
        receive_queue_bytes: 0,
        send_queue_bytes: 0,
        bytes_received: 5,
        bytes_sent: 14,
        idle_jiffies: 250,
        kernel_time: (0, 0),
    }
}

fn bytes_each(v6: bool) -> isize {
    let processes = [10, 11, 12, 13].map(|pid| ProcessKey {
        pid,
        start_time_ns: u64::from(pid),
    });
    let sockets = || {
        (0..SOCKETS).map(|number| {
            let (end, process) = match number % 2 {
                0 => (End::Client, processes[number as usize / 2 % 3]),
                _ => (End::Server, processes[3]),
            };
            (socket(number, end, process, v6), process)
        })
    };
    let before = HELD_BYTES.load(Relaxed);
    let mut table = SocketTable::default();
    let mut counts = RunningCounts::new(None);
    let mut groups = Groups::new(Verdicts::default(), 0);
    let stack: Arc<Stack> = Arc::default();
    let site = Arc::new(Site {
        function: Some("connect".to_owned()),
        file: None,
        line: None,
        module: None,
    });
    for (socket, process) in sockets() {
        let owner = Owner::Process(process);
        table.change(&socket);
        counts.set(&socket, owner, 1);
        groups.set(&socket, owner, Some("worker.service"), 1);
        table.set_stack(socket.id, socket.opened_ns, Arc::clone(&stack));
        groups.set_site(socket.id, socket.opened_ns, Arc::clone(&site));
    }
    for ((socket, process), fd) in sockets().zip(0..) {
        table.hold(&held_by(&socket, process, fd));
    }
    let held = HELD_BYTES.load(Relaxed) - before;
    assert_eq!(table.len(), SOCKETS as usize);
    assert_eq!(counts.port(6379).both_ends(), SOCKETS);
    held / SOCKETS as isize
}

/// One after the other: they share the count.
#[test]
fn a_socket_is_kept_in_few_bytes() {
    for v6 in [false, true] {
        let bytes = bytes_each(v6);
        assert!(bytes <= MOST_BYTES, "{bytes} bytes a socket, IPv6: {v6}");
    }
}
