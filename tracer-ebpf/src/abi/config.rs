//! The configuration of the kernel side: read-only globals that are fixed when it is loaded.
//!
//! Being frozen, they are constants to the verifier, which drops the branches they rule out.

/// Largest stack copy, bytes.
pub const STACK_BYTES_MAX: u32 = 64 * 1024;
/// The copy is taken in units of this, the smallest page of both architectures.
pub const STACK_PAGE_BYTES: u32 = 4096;

/// 64 Ki bits, one a port; bit `p & 63` of word `p >> 6`.
pub type PortBitmap = [u64; 1024];

/// What the programs are told.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// connleak's own process: its connections are tracked, flagged `OWN` and never counted.
    pub own_tgid: u32,
    /// Pages of `STACK_PAGE_BYTES` to copy at connect: 0, 1, 2, 4, 8 or 16.
    pub stack_pages: u32,
    /// `bpf_task_pt_regs` exists (5.15); else the registers' place is computed.
    pub has_task_pt_regs: u32,
    /// `bpf_get_current_task_btf` exists (5.11).
    pub has_current_task_btf: u32,
    /// `bpf_sock_from_file` exists (5.11), and `bpf_skc_to_tcp_sock` (5.9) with it.
    pub has_sock_from_file: u32,
    /// The open-file iterator adds what it finds to `SOCKETS`.
    pub seed: u32,
    /// `THREAD_SIZE - TOP_OF_KERNEL_STACK_PADDING`, where `has_task_pt_regs` is 0.
    pub kernel_stack_bytes: u32,
    /// A process has every stack taken up to this many connects a second,
    pub stacks_per_second: u32,
    /// and one in this many beyond it (a power of two, less one as a mask).
    pub stack_sample_mask: u32,
    /// Descendants of connleak's own process are followed from their first moment.
    pub follow_children: u32,
    /// The port to watch, where it is one; 0 where `PORTS` says which.
    pub only_port: u32,
    /// Slots in use: 0, or a power of two.
    pub slots: u32,
    /// The kernel preempts the programs of tracepoints (7.0).
    pub preempts: u32,
}

const _: () = assert!(size_of::<Config>() == 52);

impl Config {
    pub const ZERO: Self = Self {
        own_tgid: 0,
        stack_pages: 0,
        has_task_pt_regs: 0,
        has_current_task_btf: 0,
        has_sock_from_file: 0,
        seed: 0,
        kernel_stack_bytes: 0,
        stacks_per_second: 0,
        stack_sample_mask: 0,
        follow_children: 0,
        only_port: 0,
        slots: 0,
        preempts: 0,
    };
}

#[cfg(feature = "user")]
// SAFETY: repr(C), u32 fields only, no padding: any bytes are a value.
unsafe impl aya::Pod for Config {}
