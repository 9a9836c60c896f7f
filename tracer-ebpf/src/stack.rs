//! A connect stack as the kernel can take it: user registers and a bounded copy of the user stack.

use aya_ebpf::helpers::generated::{
    bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_user, bpf_task_pt_regs,
};
use tracer_ebpf::abi::{
    config::STACK_PAGE_BYTES,
    counters::Counter,
    event::{CONNECT, ConnectEvent, EventHeader, HAS_REGISTERS, InterpreterStack, STACK_BOUNDED},
    socket::{KERNEL_WORKER, SocketRecord},
};

use crate::{
    globals::{config, offset},
    interpreter::{self, Found, Walk},
    maps::{EVENTS, count},
    notice, record,
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

/// A socket as it stands in `SOCKETS`.
#[derive(Clone, Copy)]
pub(crate) struct Opened<'a> {
    pub(crate) socket: u64,
    pub(crate) record: &'a SocketRecord,
}

/// Sends `opened` with the current user stack. False if the ring had no room for the stack.
#[inline(always)]
pub(crate) fn send(opened: Opened<'_>, task: Task) -> bool {
    let registers = if opened.record.flags & KERNEL_WORKER != 0 {
        None
    } else {
        user_registers(task)
    };
    let Some(registers) = registers else {
        return send_with::<0>(opened, None, None);
    };
    let Some(layout) = interpreter::of(task, opened.record.opener_tgid) else {
        return send_sized(opened, task, registers, None);
    };
    let Some(walk) = Walk::take(layout, task) else {
        count(Counter::StackRingFull);
        return false;
    };
    let sent = send_sized(opened, task, registers, Some(&walk));
    walk.give_back();
    sent
}

/// Sends with a copy as large as the stack may be.
#[inline(always)]
fn send_sized(opened: Opened<'_>, task: Task, registers: Registers, walk: Option<&Walk>) -> bool {
    let base = registers.sp & !u64::from(STACK_PAGE_BYTES - 1);
    let bound = u64::from(config!(stack_pages));
    let pages = pages_to_top(task, base).min(bound);
    let registers = Some(registers);
    // The size of a ring entry must be a constant to the verifier, hence one arm a size.
    match pages {
        0 => send_with::<0>(opened, registers, walk),
        1 => send_with::<1>(opened, registers, walk),
        2 => send_with::<2>(opened, registers, walk),
        3..=4 => send_with::<4>(opened, registers, walk),
        5..=8 => send_with::<8>(opened, registers, walk),
        _ => send_with::<16>(opened, registers, walk),
    }
}

#[inline(always)]
fn send_with<const PAGES: usize>(
    opened: Opened<'_>,
    registers: Option<Registers>,
    walk: Option<&Walk>,
) -> bool {
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
    let mut found = Found::NOTHING;
    if let Some(walk) = walk {
        found = walk.found();
        // SAFETY: the frames stand between the event and the copy, within the reserved entry. The
        // helper copies a kilobyte in one instruction of ours.
        unsafe {
            bpf_probe_read_kernel(
                event.add(size_of::<ConnectEvent>()).cast(),
                size_of::<InterpreterStack>() as u32,
                walk.frames().cast(),
            );
        }
    }
    // SAFETY: all pages lie within the reserved entry.
    let (stack_bytes, bounded) = unsafe { copy::<PAGES>(event.add(COPY_AT), stack_base) };
    // SAFETY: the entry is larger than the event, and the ring aligns entries to 8 bytes. The
    // socket's lock keeps its other hooks from its record.
    unsafe {
        let event = event.cast::<ConnectEvent>();
        (&raw mut (*event).socket.header).write(EventHeader {
            kind: CONNECT,
            length_bytes: COPY_AT as u32 + stack_bytes,
            time_ns: opened.record.opened_ns,
        });
        (&raw mut (*event).socket.socket).write(opened.socket);
        record::copy(&raw mut (*event).socket.record, opened.record);
        (&raw mut (*event).ip).write(ip);
        (&raw mut (*event).sp).write(sp);
        (&raw mut (*event).fp).write(fp);
        (&raw mut (*event).lr).write(0);
        (&raw mut (*event).stack_base).write(stack_base);
        (&raw mut (*event).stack_bytes).write(stack_bytes);
        (&raw mut (*event).flags).write(registers_flag | bounded);
        (&raw mut (*event).runtime).write(found.runtime);
        (&raw mut (*event).frame_count).write(found.count);
        (&raw mut (*event).frames_end).write(found.end);
    }
    entry.submit(notice::wake_up());
    true
}

/// Copies PAGES pages of the user stack from `base`, or as many as can be read. Returns the bytes
/// copied, and `STACK_BOUNDED` if there may be more.
///
/// # Safety
///
/// `to` has room for PAGES pages.
#[inline(always)]
unsafe fn copy<const PAGES: usize>(to: *mut u8, base: u64) -> (u32, u32) {
    const PAGE: usize = STACK_PAGE_BYTES as usize;
    // SAFETY: the caller's promise; the helper checks the source.
    let read = |page: usize, pages: usize| unsafe {
        bpf_probe_read_user(
            to.add(page * PAGE).cast(),
            (pages * PAGE) as u32,
            (base + (page * PAGE) as u64) as *const _,
        )
    };
    if PAGES > 1 && read(0, PAGES) == 0 {
        return ((PAGES * PAGE) as u32, STACK_BOUNDED);
    }
    // Nothing is asked of these two: to the verifier all ways out of the loop are then one.
    let mut bytes = 0;
    let mut bounded = STACK_BOUNDED;
    // One at a time: a read that runs past the top of the stack fails as a whole.
    for page in 0..PAGES {
        if read(page, 1) != 0 {
            if page == 0 {
                count(Counter::StackFault);
            }
            bounded = 0;
            break;
        }
        bytes += STACK_PAGE_BYTES;
    }
    (bytes, bounded)
}
