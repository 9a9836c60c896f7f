//! Running: which program is at work on this CPU, for its twin to know.
//!
//! The kernel leaves a tracepoint's program out where it runs already on the same CPU. That is no
//! accident here: a notice that wakes the reader raises an interrupt at once (`irq_work`), inside
//! the program that sent it, and with the interrupt come the softirqs that were due. Each program
//! that begins or ends a record therefore has a twin, which hangs beside it, is not running then,
//! and otherwise only looks here and returns. Where tracepoints' programs are preempted (7.0) a CPU's
//! flag says nothing of the process that looks: there it is as [`crate::preempted`] says.

use tracer_ebpf::abi::{counters::Counter, cpu::TURNS};

use crate::maps::{count, cpu};

/// Whose turn an event is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Program,
    Twin,
    /// The second of two twins; see [`crate::preempted`].
    Last,
}

const _: () = assert!(Turn::Last as usize + 1 == TURNS);

/// A program that has a twin.
#[derive(Clone, Copy)]
pub(crate) enum Twinned {
    State,
    Destroy,
}

/// Does `work`, the whole of the program, which an interrupt or another process on this CPU can
/// find half done.
///
/// Before 6.1 (05b24ff9b2cf) the kernel leaves nothing out: then the same program interrupts itself,
/// and has the turn that no twin has there.
#[inline(always)]
pub(crate) fn during(program: Twinned, work: impl FnOnce(Turn) -> Option<()>) -> Option<()> {
    let cpu = cpu()?;
    // SAFETY: a value of the map outlives the program's run; what interrupts this program on this
    // CPU leaves the flag as it was.
    unsafe {
        let running = &raw mut (*cpu).running[program as usize];
        let interrupts = running.read_volatile();
        running.write_volatile(1);
        let done = work(if interrupts == 0 {
            Turn::Program
        } else {
            Turn::Last
        });
        running.write_volatile(interrupts);
        done
    }
}

/// For the twin: was this event left out of `program`? Counts it as caught up if it was.
#[inline(always)]
pub(crate) fn left_out(program: Twinned) -> bool {
    let running = cpu().is_some_and(|cpu| {
        // SAFETY: a value of the map outlives the program's run.
        unsafe { (&raw const (*cpu).running[program as usize]).read_volatile() != 0 }
    });
    if running {
        count(Counter::CaughtUp);
    }
    running
}
