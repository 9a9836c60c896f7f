//! A connect stack as the kernel can take it: user registers and a bounded copy of the user stack.

use aya_ebpf::helpers::generated::{
    bpf_get_current_task_btf, bpf_probe_read_user, bpf_task_pt_regs,
};
use tracer_ebpf::abi::{
    config::STACK_PAGE_BYTES,
    counters::Counter,
    event::{
        CONNECT, ConnectEvent, EventHeader, HAS_REGISTERS, InterpreterStack, STACK_BOUNDED,
        SocketEvent,
    },
    socket::KERNEL_WORKER,
};

use crate::{
    globals::{config, offset},
    interpreter,
    maps::{EVENTS, count},
    sock::read_kernel,
    task::Task,
};

/// Where the stack copy begins.
const COPY_AT: usize = size_of::<ConnectEvent>() + size_of::<InterpreterStack>();

struct Registers {
    ip: u64,
    sp: u64,
    fp: u64,
}

/// The registers with which `task`, the current one, entered the kernel.
#[inline(always)]
fn user_registers(task: Task) -> Option<Registers> {
    let regs = if config!(has_task_pt_regs) != 0 {
        // SAFETY: the task is the current one, as the helper wants it.
        unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as u64 }
    } else {
        // arch/x86/include/asm/processor.h, task_pt_regs: the last thing on the kernel stack.
        let stack: u64 = task.read(offset!(task_stack))?;
        // struct pt_regs of x86_64 is user API and has 21 words.
        stack + u64::from(config!(kernel_stack_bytes)) - 21 * 8
    };
    let cs: u64 = read_kernel(regs, offset!(regs_cs))?;
    // Privilege level 3, or these are not user registers at all.
    if cs & 3 != 3 {
        return None;
    }
    Some(Registers {
        ip: read_kernel(regs, offset!(regs_ip))?,
        sp: read_kernel(regs, offset!(regs_sp))?,
        fp: read_kernel(regs, offset!(regs_fp))?,
    })
}

/// Pages from `base` to the top of the main thread's stack, `u64::MAX` on any other stack.
#[inline(always)]
fn pages_to_top(task: Task, base: u64) -> u64 {
    let Some(mm) = task.read::<u64>(offset!(task_mm)) else {
        return u64::MAX;
    };
    let top: u64 = read_kernel(mm, offset!(mm_start_stack)).unwrap_or(0);
    if top < base {
        return u64::MAX;
    }
    (top - base) / u64::from(STACK_PAGE_BYTES) + 1
}

/// Sends `socket` with the current user stack. False if the ring had no room for the stack.
#[inline(always)]
pub(crate) fn send(socket: &SocketEvent, task: Task) -> bool {
    let registers = if socket.record.flags & KERNEL_WORKER != 0 {
        None
    } else {
        user_registers(task)
    };
    let Some(registers) = registers else {
        return send_with::<0>(socket, task, None);
    };
    let base = registers.sp & !u64::from(STACK_PAGE_BYTES - 1);
    let bound = u64::from(config!(stack_pages));
    let pages = pages_to_top(task, base).min(bound);
    // The size of a ring entry must be a constant to the verifier, hence one arm a size.
    match pages {
        0 => send_with::<0>(socket, task, Some(registers)),
        1 => send_with::<1>(socket, task, Some(registers)),
        2 => send_with::<2>(socket, task, Some(registers)),
        3..=4 => send_with::<4>(socket, task, Some(registers)),
        5..=8 => send_with::<8>(socket, task, Some(registers)),
        _ => send_with::<16>(socket, task, Some(registers)),
    }
}

#[inline(always)]
fn send_with<const PAGES: usize>(
    socket: &SocketEvent,
    task: Task,
    registers: Option<Registers>,
) -> bool {
    let page_bytes = STACK_PAGE_BYTES as usize;
    let Some(mut entry) = EVENTS.reserve_bytes(COPY_AT + PAGES * STACK_PAGE_BYTES as usize, 0)
    else {
        count(Counter::StackRingFull);
        return false;
    };
    let registers_flag = if registers.is_some() {
        HAS_REGISTERS
    } else {
        0
    };
    let Registers { ip, sp, fp } = registers.unwrap_or(Registers {
        ip: 0,
        sp: 0,
        fp: 0,
    });
    let stack_base = sp & !u64::from(STACK_PAGE_BYTES - 1);
    let event = entry.as_mut_ptr();
    let layout = match registers_flag {
        0 => None,
        _ => interpreter::of(task, socket.record.opener_tgid),
    };
    // SAFETY: it stands between the event and the copy, all of it within the reserved entry.
    let frames =
        unsafe { interpreter::walk(event.add(size_of::<ConnectEvent>()).cast(), layout, task) };
    let mut copied = 0;
    while copied < PAGES {
        // SAFETY: page `copied` of PAGES lies within the reserved entry; the helper checks the
        // source. One page at a time, because a read that runs past the top of the stack fails
        // as a whole.
        let failed = unsafe {
            bpf_probe_read_user(
                event.add(COPY_AT + copied * page_bytes).cast(),
                STACK_PAGE_BYTES,
                (stack_base + (copied * page_bytes) as u64) as *const _,
            )
        };
        if failed != 0 {
            break;
        }
        copied += 1;
    }
    if PAGES > 0 && copied == 0 {
        count(Counter::StackFault);
    }
    let bounded = if copied == PAGES { STACK_BOUNDED } else { 0 };
    let stack_bytes = (copied * page_bytes) as u32;
    // SAFETY: the entry is larger than the event, and the ring aligns entries to 8 bytes.
    unsafe {
        event.cast::<ConnectEvent>().write(ConnectEvent {
            socket: SocketEvent {
                header: EventHeader {
                    kind: CONNECT,
                    length_bytes: COPY_AT as u32 + stack_bytes,
                    time_ns: socket.header.time_ns,
                },
                ..*socket
            },
            ip,
            sp,
            fp,
            lr: 0,
            stack_base,
            stack_bytes,
            flags: registers_flag | bounded,
            runtime: frames.runtime,
            frame_count: frames.count,
            frames_end: frames.end,
        });
    }
    entry.submit(0);
    true
}
