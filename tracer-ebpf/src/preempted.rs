//! Preempted: was an event left out, on a kernel that preempts a tracepoint's programs?
//!
//! Since 7.0 tracepoints are read under SRCU (a46023d5616e), and raw_tp and tp_btf programs can be
//! preempted (f7d327654b88). One that another process finds half done is left out for every process
//! on that CPU until the first one runs again: hundreds of events under load. Perf still runs a
//! tracepoint's programs with preemption off (16718274ee75), so there the programs that begin and
//! end records are perf's, those of exec and exit too. They are left out only while
//! `bpf_prog_active` is raised on their CPU (kernel/trace/bpf_trace.c, `trace_call_bpf`): by one of
//! them, when a softirq comes in between, or by a system call that reads or changes a map, which
//! can be preempted. Userspace does without those calls ([`crate::programs`], `ask`), except a few
//! a second; another program's remain.
//!
//! So two programs hang beside each that begins or ends records. They ask not who is running, as
//! [`crate::running`] does, for that says nothing under preemption, but what the socket's record
//! says. All events of a socket are under its lock, and the programs of one event run one after the
//! other: whatever the record lacks of the event was left out. Two, as each of them can be preempted
//! in turn. An event is lost only if all three are left out at once: a process preempted in each of
//! the two, and the third with a softirq on top of it or a system call under it.

use aya_ebpf::{macros::map, maps::HashMap, programs::TracePointContext};
use tracer_ebpf::abi::{
    counters::Counter,
    socket::{STACK_LOST, STACK_MISSED, TrackedSocket},
};

use crate::{
    filter::Match,
    globals::config,
    maps::count,
    record,
    running::Turn,
    sock::{SockFields, TCP_ESTABLISHED, TCP_SYN_SENT, read_kernel},
};

/// Sockets that `SOCKETS` refused, and which are counted as refused: without a record they look as
/// if they were left out.
///
/// Bound: 1,024; an entry lives from the refusal to the last program of the same event. Written and
/// read here. Full: a socket that is refused may be counted twice.
#[map]
static REFUSED: HashMap<u64, u8> = HashMap::with_max_entries(1024, 0);

/// For perf's programs: the field at `offset` of the event.
#[inline(always)]
pub(crate) fn field<T>(ctx: &TracePointContext, offset: usize) -> Option<T> {
    use aya_ebpf::EbpfContext;
    read_kernel(ctx.as_ptr() as u64, offset)
}

/// `SOCKETS` has no room for the socket at `address`.
#[inline(always)]
pub(crate) fn refuse(address: u64) {
    if config!(preempts) != 0 {
        // Fails when it is full.
        let _ = REFUSED.insert(address, 0, 0);
    }
}

/// Was the change of `sock` to state `new` left out? Counts it as caught up if it was.
#[inline(always)]
pub(crate) fn change_left_out(sock: impl SockFields, matched: Match, new: u8, turn: Turn) -> bool {
    let tracked = record::of(sock.address());
    // SAFETY: a value of the map outlives the program's run.
    if tracked.is_some_and(|tracked| unsafe { (*tracked).record.state } == new) {
        return false;
    }
    // Before the record: the walk over open files may just have added it.
    if was_refused(sock.address(), turn) {
        return false;
    }
    let begins = new == TCP_SYN_SENT || new == TCP_ESTABLISHED && matched.server_end;
    // Any other change of a socket without a record is none of ours; see `state`.
    if tracked.is_none() && !(begins && sock.is_tcp()) {
        return false;
    }
    count(Counter::CaughtUp);
    true
}

/// Where a program at connect can be preempted, two like it are beside it, in no order: has one of
/// them told of `sock` already?
#[inline(always)]
pub(crate) fn is_told(sock: impl SockFields) -> bool {
    if config!(preempts) == 0 {
        return false;
    }
    let Some(tracked) = record::of(sock.address()) else {
        return false;
    };
    // SAFETY: a value of the map outlives the program's run.
    let (noticed_at, flags) = unsafe { ((*tracked).noticed_at, (*tracked).record.flags) };
    // Of one that found the ring full no notice waits.
    noticed_at != 0 || flags & STACK_MISSED == STACK_LOST
}

/// Was the end of `sock` left out, of which `tracked` is the record? Counts it as caught up if it
/// was.
#[inline(always)]
pub(crate) fn end_left_out(
    sock: impl SockFields,
    tracked: Option<*mut TrackedSocket>,
    turn: Turn,
) -> bool {
    if tracked.is_none() {
        // What its last event may have left, if the last program was left out.
        was_refused(sock.address(), turn);
        return false;
    }
    count(Counter::CaughtUp);
    true
}

#[inline(always)]
fn was_refused(address: u64, turn: Turn) -> bool {
    let was = REFUSED.get_ptr(address).is_some();
    if was && turn == Turn::Last {
        let _ = REFUSED.remove(address);
    }
    was
}
