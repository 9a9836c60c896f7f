//! The marks of ended sockets, read where the kernel side writes them.

use aya::maps::Map;
use tracer_ebpf::abi::ended::{self, ENDED_SLOTS, EndedMark};

use super::{error::KernelError, mapped::Mapped};

const WORDS: usize = size_of::<EndedMark>() / size_of::<u64>();

/// A look-up in `SOCKETS` is a system call. Of connections that come and go by the thousand, this
/// spares it for nearly all.
pub(super) struct Ended(Mapped<WORDS>);

impl Ended {
    pub(super) fn map(map: Map) -> Result<Self, KernelError> {
        Mapped::to_read(map, "ENDED", ENDED_SLOTS as usize).map(Self)
    }

    pub(super) fn has(&self, address: u64, opened_ns: u64) -> bool {
        self.0.read(ended::slot(opened_ns) as usize) == [address, opened_ns]
    }
}
