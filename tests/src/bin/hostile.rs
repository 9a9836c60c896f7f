//! The hostile load: 64 processes that fork and connect as fast as they can, and count truly.
//!
//! usage: hostile HOST:PORT WORKERS SECONDS HELD. Each worker opens HELD connections before the
//! load and holds them to the end. Prints `ready` when all hold theirs, then after the load one
//! line of JSON: every connect that reached TCP, and the local ports each worker holds.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use connleak_tests::peer::set_linger_zero;
use connleak_tests::script::RawAddress;

/// Shared between all processes; one slot a worker, and the ports it holds.
#[repr(C)]
struct Shared {
    go: AtomicU64,
    ready: AtomicU64,
    connects: [AtomicU64; 256],
    pids: [AtomicU64; 256],
    ports: [[AtomicU64; 16]; 256],
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let to: SocketAddr = words[0].parse().expect("HOST:PORT");
    let [workers, seconds, held] =
        [&words[1], &words[2], &words[3]].map(|w| w.parse::<usize>().expect("a number"));
    assert!(workers <= 256 && held <= 16, "too many");
    let shared = share();
    let mut children = Vec::new();
    for worker in 0..workers {
        // SAFETY: this process has one thread.
        match unsafe { libc::fork() } {
            0 => work(shared, worker, to, seconds, held),
            pid => children.push(pid),
        }
    }
    await_value(&shared.ready, workers as u64);
    let mut out = std::io::stdout();
    let mut say = |line: String| {
        out.write_all(line.as_bytes())
            .and_then(|()| out.flush())
            .expect("stdout")
    };
    say("ready\n".into());
    std::io::stdin()
        .read_exact(&mut [0])
        .expect("one byte on stdin starts the load");
    shared.go.store(1, Ordering::Release);
    await_value(&shared.ready, 2 * workers as u64);
    let connects: u64 = shared
        .connects
        .iter()
        .map(|c| c.load(Ordering::Acquire))
        .sum();
    let holders: Vec<(u64, Vec<u64>)> = (0..workers)
        .map(|w| {
            let ports = shared.ports[w][..held]
                .iter()
                .map(|p| p.load(Ordering::Acquire))
                .collect();
            (shared.pids[w].load(Ordering::Acquire), ports)
        })
        .collect();
    say(format!(
        "{}\n",
        serde_json::json!({ "connects": connects, "holders": holders })
    ));
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    for child in children {
        // SAFETY: our own children, not yet reaped.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
    }
}

fn work(shared: &'static Shared, worker: usize, to: SocketAddr, seconds: usize, held: usize) -> ! {
    // SAFETY: prctl with these arguments has no memory effects: no worker outlives the load.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    shared.pids[worker].store(u64::from(std::process::id()), Ordering::Release);
    for slot in &shared.ports[worker][..held] {
        let fd = connect(to, worker, &shared.connects[worker]).expect("a connection to hold");
        slot.store(u64::from(local_port(fd)), Ordering::Release);
    }
    shared.ready.fetch_add(1, Ordering::AcqRel);
    await_value(&shared.go, 1);
    let deadline = Instant::now() + Duration::from_secs(seconds as u64);
    let mut round = 0usize;
    while Instant::now() < deadline {
        round += 1;
        // SAFETY: this process has one thread.
        match unsafe { libc::fork() } {
            0 => {
                let fds: Vec<i32> = (0..4)
                    .filter_map(|_| connect(to, worker, &shared.connects[worker]))
                    .collect();
                // RST spares TIME_WAIT, which would use the ports up; some die with them open.
                for fd in fds {
                    let _ = set_linger_zero(fd);
                    if round.is_multiple_of(2) {
                        // SAFETY: our own fd.
                        unsafe { libc::close(fd) };
                    }
                }
                // SAFETY: no destructor of ours needs to run.
                unsafe { libc::_exit(0) }
            }
            -1 => {}
            // SAFETY: our own child.
            child => unsafe {
                libc::waitpid(child, std::ptr::null_mut(), 0);
            },
        }
    }
    shared.ready.fetch_add(1, Ordering::AcqRel);
    loop {
        // SAFETY: waits for the signal that ends this worker.
        unsafe { libc::pause() };
    }
}

/// Connects and counts, if the call reached TCP's connect: a socket or a port that is not to be
/// had fails before it.
fn connect(to: SocketAddr, worker: usize, count: &AtomicU64) -> Option<i32> {
    let raw = RawAddress::from(to);
    let from = RawAddress::from(SocketAddr::from(([127, 0, 1, worker as u8], 0)));
    let one = 1i32;
    // SAFETY: both addresses and the option outlive their calls; the fd is closed or handed on.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        if fd < 0 {
            return None;
        }
        // A source address for each worker, its port chosen at connect: 64 times as many ports.
        libc::setsockopt(
            fd,
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const one).cast(),
            4,
        );
        libc::bind(fd, from.as_ptr(), from.len());
        let rc = libc::connect(fd, raw.as_ptr(), raw.len());
        let errno = std::io::Error::last_os_error().raw_os_error();
        if rc == 0
            || matches!(
                errno,
                Some(libc::ECONNREFUSED | libc::ECONNRESET | libc::ETIMEDOUT)
            )
        {
            count.fetch_add(1, Ordering::AcqRel);
        }
        if rc == 0 {
            return Some(fd);
        }
        libc::close(fd);
        None
    }
}

fn local_port(fd: i32) -> u16 {
    // SAFETY: an IPv4 socket's name fits a sockaddr_in, whose size is given.
    unsafe {
        let mut name: libc::sockaddr_in = std::mem::zeroed();
        let mut length = size_of_val(&name) as libc::socklen_t;
        libc::getsockname(fd, (&raw mut name).cast(), &raw mut length);
        u16::from_be(name.sin_port)
    }
}

fn await_value(value: &AtomicU64, at_least: u64) {
    while value.load(Ordering::Acquire) < at_least {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn share() -> &'static Shared {
    // SAFETY: a fresh shared mapping of zeroes, large enough, never unmapped: atomics of 0.
    unsafe {
        let at = libc::mmap(
            std::ptr::null_mut(),
            size_of::<Shared>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert!(at != libc::MAP_FAILED, "failed to share memory");
        &*at.cast::<Shared>()
    }
}
