//! A kernel task, read through resolved offsets.

use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_uid_gid,
    generated::bpf_get_current_task_btf,
};
use tracer_ebpf::abi::socket::{KERNEL_WORKER, OWN, SocketRecord};

use crate::{
    globals::{config, offset},
    sock::{load, read_kernel},
};

/// include/linux/sched.h: PF_KTHREAD, and PF_IO_WORKER (io_uring's threads, since 5.12).
const PF_IO_WORKER: u32 = 0x10;
/// Set before a process's files are closed (kernel/exit.c, do_exit: exit_signals, then exit_files).
const PF_EXITING: u32 = 0x4;
const PF_KTHREAD: u32 = 0x0020_0000;

/// A `struct task_struct`.
#[derive(Clone, Copy)]
pub(crate) struct Task {
    address: u64,
    /// The verifier knows its type, and lets plain loads read it.
    is_typed: bool,
}

impl Task {
    /// The task at `address`, which helpers read.
    #[inline(always)]
    pub(crate) fn at(address: u64) -> Self {
        Self {
            address,
            is_typed: false,
        }
    }

    /// The task that an iterator hands over.
    ///
    /// # Safety
    ///
    /// It is one: the verifier refuses the loads of what it does not know the type of.
    #[inline(always)]
    pub(crate) unsafe fn typed(address: u64) -> Self {
        Self {
            address,
            is_typed: true,
        }
    }

    #[inline(always)]
    pub(crate) fn current() -> Self {
        if config!(has_current_task_btf) == 0 {
            // SAFETY: the helper only returns the current task's address.
            return Self::at(unsafe { bpf_get_current_task() });
        }
        Self {
            // SAFETY: as above.
            address: unsafe { bpf_get_current_task_btf() } as u64,
            is_typed: true,
        }
    }

    #[inline(always)]
    pub(crate) fn read<T>(self, offset: usize) -> Option<T> {
        self.read_of(self.address, offset)
    }

    /// Reads a `T` at `address + offset`, where `address` is this task's or was read from it.
    #[inline(always)]
    fn read_of<T>(self, address: u64, offset: usize) -> Option<T> {
        if !self.is_typed {
            return read_kernel(address, offset);
        }
        // SAFETY: what is read from what the verifier knows the type of, it knows the type of.
        Some(unsafe { load(address, offset) })
    }

    #[inline(always)]
    pub(crate) fn tgid(self) -> u32 {
        self.read(offset!(task_tgid)).unwrap_or(0)
    }

    /// `start_boottime` of the thread group leader: the process's, not the thread's.
    #[inline(always)]
    pub(crate) fn process_start_ns(self) -> u64 {
        let Some(leader) = self.read::<u64>(offset!(task_leader)) else {
            return 0;
        };
        self.read_of(leader, offset!(task_start)).unwrap_or(0)
    }

    /// It has no user registers of its own: a kernel thread or io_uring's worker.
    #[inline(always)]
    pub(crate) fn is_kernel_worker(self) -> bool {
        let flags: u32 = self.read(offset!(task_flags)).unwrap_or(0);
        flags & (PF_KTHREAD | PF_IO_WORKER) != 0
    }

    /// What it closes now, it never closed itself.
    #[inline(always)]
    pub(crate) fn is_exiting(self) -> bool {
        self.read::<u32>(offset!(task_flags)).unwrap_or(0) & PF_EXITING != 0
    }

    #[inline(always)]
    pub(crate) fn comm(self) -> [u8; 16] {
        self.read(offset!(task_comm)).unwrap_or([0; 16])
    }

    /// No thread of its process is left (`signal->live`, which do_exit lowers before the
    /// tracepoint sched_process_exit fires).
    #[inline(always)]
    pub(crate) fn process_has_ended(self) -> bool {
        let Some(signal) = self.read::<u64>(offset!(task_signal)) else {
            return false;
        };
        read_kernel::<i32>(signal, offset!(signal_live)) == Some(0)
    }
}

/// Makes the current process the opener of `record`. Returns what its flags are to say of that.
#[inline(always)]
pub(crate) fn claim(record: &mut SocketRecord, task: Task) -> u8 {
    let pid_tgid = bpf_get_current_pid_tgid();
    record.opener_tgid = (pid_tgid >> 32) as u32;
    record.opener_tid = pid_tgid as u32;
    record.opener_uid = bpf_get_current_uid_gid() as u32;
    record.opener_start_ns = task.process_start_ns();
    record.opener_comm = bpf_get_current_comm().unwrap_or([0; 16]);
    let mut flags = 0;
    if task.is_kernel_worker() {
        flags |= KERNEL_WORKER;
    }
    if record.opener_tgid == config!(own_tgid) {
        flags |= OWN;
    }
    flags
}
