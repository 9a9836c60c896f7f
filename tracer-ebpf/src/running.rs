//! Running: which program is at work on this CPU, for its twin to know.
//!
//! The kernel leaves a tracepoint's program out where it runs already on the same CPU. That is no
//! accident here: a notice that wakes the reader raises an interrupt at once (`irq_work`), inside
//! the program that sent it, and with the interrupt come the softirqs that were due. Each program
//! that begins or ends a record therefore has a twin, which hangs beside it, is not running then,
//! and otherwise only looks here and returns. Where tracepoints' programs are preempted (7.0) a CPU's
//! flag says nothing of the process that looks: there it is as [`crate::preempted`] says.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use tracer_ebpf::abi::counters::Counter;

use crate::maps::count;

/// Bound: a flag a program and CPU. Written and read here.
#[map]
static RUNNING: PerCpuArray<[u32; 2]> = PerCpuArray::with_max_entries(1, 0);

/// Whose turn an event is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Program,
    Twin,
    /// The second of two twins; see [`crate::preempted`].
    Last,
}

impl Turn {
    pub(crate) const COUNT: usize = 3;
}

/// A program that has a twin.
#[derive(Clone, Copy)]
pub(crate) enum Twinned {
    State,
    Destroy,
}

/// Does `work`, the whole of the program, which an interrupt or another process on this CPU can
/// find half done.
#[inline(always)]
pub(crate) fn during(program: Twinned, work: impl FnOnce() -> Option<()>) -> Option<()> {
    set(program, 1);
    let done = work();
    set(program, 0);
    done
}

/// For the twin: was this event left out of `program`? Counts it as caught up if it was.
#[inline(always)]
pub(crate) fn left_out(program: Twinned) -> bool {
    let running = RUNNING.get_ptr(0).is_some_and(|flags| {
        // SAFETY: a value of the map outlives the program's run.
        unsafe { (&raw const (*flags)[program as usize]).read_volatile() != 0 }
    });
    if running {
        count(Counter::CaughtUp);
    }
    running
}

#[inline(always)]
fn set(program: Twinned, running: u32) {
    if let Some(flags) = RUNNING.get_ptr_mut(0) {
        // SAFETY: as above; what interrupts this program on this CPU leaves the flag as it was.
        unsafe { (&raw mut (*flags)[program as usize]).write_volatile(running) };
    }
}
