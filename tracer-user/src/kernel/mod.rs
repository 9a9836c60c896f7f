//! The kernel side as userspace sees it: loading, attaching, and reading what it delivers.
//!
//! The only module that imports aya.

mod ask;
mod attach;
mod batch;
mod btf;
mod btf_bytes;
mod ended;
mod error;
mod iterators;
mod load;
mod mapped;
mod maps;
mod misses;
mod offsets;
mod probes;
mod ring;
mod ring_memory;
mod slots;
pub mod support;
mod syscall;

pub use error::KernelError;
pub use iterators::Walk;
pub use load::{Kernel, Options};
pub use maps::{Counters, Interpreters, Maps};
pub use probes::{Family, Hook, PERF_TRACEPOINT, PREEMPTED, Probes, ProgramCost};
pub use ring::{Passes, Ring, Taken};
pub use tracer_ebpf::abi::socket::SocketRecord;
