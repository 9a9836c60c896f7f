//! A stack sample taken with ptrace: what the kernel side takes at connect, without BPF.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::ptr;

use connleak::stacks::{Registers, StackSample};

const PAGE_BYTES: u64 = 4096;

/// Stops the thread, takes registers and up to `bound_bytes` of stack, lets it run on.
pub(crate) fn capture(thread: u32, bound_bytes: usize) -> io::Result<StackSample> {
    let attached = Attached::to(thread as libc::pid_t)?;
    let registers = attached.registers()?;
    let memory = File::open(format!("/proc/{thread}/mem"))?;
    let mut copy = Vec::new();
    let mut bounded = true;
    // Page by page, as the kernel side does: the read that faults ends the copy.
    while copy.len() < bound_bytes {
        let at = registers.rsp + copy.len() as u64;
        let in_page = (PAGE_BYTES - at % PAGE_BYTES) as usize;
        let mut page = vec![0; in_page.min(bound_bytes - copy.len())];
        if memory.read_exact_at(&mut page, at).is_err() {
            bounded = false;
            break;
        }
        copy.extend(page);
    }
    Ok(StackSample {
        registers: Registers {
            ip: registers.rip,
            sp: registers.rsp,
            fp: registers.rbp,
            lr: 0,
        },
        copy: copy.into(),
        bounded,
        interpreter: connleak::stacks::FrameSample::default(),
    })
}

struct Attached(libc::pid_t);

impl Attached {
    fn to(thread: libc::pid_t) -> io::Result<Self> {
        request(libc::PTRACE_ATTACH, thread, ptr::null_mut())?;
        let mut status = 0;
        // SAFETY: `status` outlives the call; __WALL waits for this thread alone.
        if unsafe { libc::waitpid(thread, &mut status, libc::__WALL) } != thread {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(thread))
    }

    fn registers(&self) -> io::Result<libc::user_regs_struct> {
        let mut registers = MaybeUninit::<libc::user_regs_struct>::zeroed();
        request(libc::PTRACE_GETREGS, self.0, registers.as_mut_ptr().cast())?;
        // SAFETY: every bit pattern is a valid register set, and the kernel has filled it.
        Ok(unsafe { registers.assume_init() })
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = request(libc::PTRACE_DETACH, self.0, ptr::null_mut());
    }
}

pub(crate) fn request(
    request: libc::c_uint,
    thread: libc::pid_t,
    data: *mut libc::c_void,
) -> io::Result<()> {
    // SAFETY: `data` is null or points to what the request writes, and outlives the call.
    let result = unsafe { libc::ptrace(request, thread, ptr::null_mut::<libc::c_void>(), data) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
