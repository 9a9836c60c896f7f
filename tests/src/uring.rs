//! One connect through io_uring, with raw calls: libc has no ring of its own.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::script::RawAddress;

const IORING_OP_CONNECT: u8 = 16;
const IOSQE_ASYNC: u8 = 1 << 4;
const IORING_ENTER_GETEVENTS: u32 = 1;
const IORING_OFF_SQES: i64 = 0x1000_0000;

/// `struct io_uring_params`, with its two offset tables.
#[repr(C)]
#[derive(Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    resv: [u32; 3],
    sq_head: u32,
    sq_tail: u32,
    sq_ring_mask: u32,
    sq_ring_entries: u32,
    sq_flags: u32,
    sq_dropped: u32,
    sq_array: u32,
    sq_resv: u32,
    sq_addr: u64,
    cq_head: u32,
    cq_tail: u32,
    cq_ring_mask: u32,
    cq_ring_entries: u32,
    cq_overflow: u32,
    cq_cqes: u32,
    cq_flags: u32,
    cq_resv: u32,
    cq_addr: u64,
}

/// `struct io_uring_sqe`, as far as connect uses it.
#[repr(C)]
struct Sqe {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    /// addr2: the length of the address.
    off: u64,
    addr: u64,
    rest: [u64; 5],
}

const _: () = assert!(size_of::<Params>() == 120 && size_of::<Sqe>() == 64);

/// Whether this kernel lets this process make a ring.
pub fn available() -> io::Result<()> {
    let mut params = Params::default();
    // SAFETY: params outlives the call; the fd is closed below.
    let fd = check(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut params) })?;
    // SAFETY: fd is ours.
    unsafe { libc::close(fd as i32) };
    Ok(())
}

/// Connects `fd` to `to` and waits for the completion. `worker` asks for an io-wq worker.
pub fn connect(fd: i32, to: &RawAddress, worker: bool) -> io::Result<()> {
    let mut params = Params::default();
    // SAFETY: params outlives the call.
    let ring =
        check(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut params) })? as i32;
    let result = submit(ring, &params, fd, to, worker);
    // SAFETY: ring is ours and its mappings are gone.
    unsafe { libc::close(ring) };
    result
}

fn submit(ring: i32, params: &Params, fd: i32, to: &RawAddress, worker: bool) -> io::Result<()> {
    // Since 5.4 one mapping holds both rings (IORING_FEAT_SINGLE_MMAP).
    let bytes = 4096;
    let queues = map(ring, bytes, 0)?;
    let sqes = map(ring, 4096, IORING_OFF_SQES)?;
    // SAFETY: the kernel laid the rings out at these offsets within the mappings, which live until
    // the munmap below; one entry is submitted, at index 0.
    let outcome = unsafe {
        sqes.cast::<Sqe>().write(Sqe {
            opcode: IORING_OP_CONNECT,
            flags: if worker { IOSQE_ASYNC } else { 0 },
            ioprio: 0,
            fd,
            off: u64::from(to.len()),
            addr: to.as_ptr() as u64,
            rest: [0; 5],
        });
        let word = |offset: u32| queues.add(offset as usize).cast::<AtomicU32>();
        (*word(params.sq_array)).store(0, Ordering::Relaxed);
        (*word(params.sq_tail)).store(1, Ordering::Release);
        check(libc::syscall(
            libc::SYS_io_uring_enter,
            ring,
            1,
            1,
            IORING_ENTER_GETEVENTS,
            std::ptr::null::<u8>(),
            0,
        ))
        .and_then(|_| {
            if (*word(params.cq_tail)).load(Ordering::Acquire) == 0 {
                return Err(io::Error::other("io_uring gave no completion"));
            }
            // struct io_uring_cqe: user_data, then res.
            let res = queues.add(params.cq_cqes as usize + 8).cast::<i32>().read();
            if res < 0 {
                Err(io::Error::from_raw_os_error(-res))
            } else {
                Ok(())
            }
        })
    };
    // SAFETY: both mappings are ours and of these sizes.
    unsafe {
        libc::munmap(queues.cast(), bytes);
        libc::munmap(sqes.cast(), 4096);
    }
    outcome
}

fn map(ring: i32, bytes: usize, offset: i64) -> io::Result<*mut u8> {
    // SAFETY: a fresh shared mapping of the ring's fd at an address the kernel chooses.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            ring,
            offset,
        )
    };
    if at == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(at.cast())
    }
}

fn check(rc: libc::c_long) -> io::Result<libc::c_long> {
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(rc)
    }
}
