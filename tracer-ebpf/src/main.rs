//! The kernel side of connleak. `cargo xtask build` builds it for the BPF target.
//!
//! # Layout
//!
//! `filter` says which sockets matter, `sock` and `task` read kernel structs through resolved
//! offsets, `stack` takes registers and a stack copy, `interpreter`
//! follows an interpreter's frames, `ahead` fetches what a walk reads next, `maps` holds every map,
//! `record` is what is remembered of a socket, there or in a `slot`, `notice` says when userspace is
//! told, `running` and `preempted` catch what the kernel leaves out, and each file of `programs` is
//! one group of hooks. Programs never import each other.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// For the one atomic add in `maps`: rustc's BPF target has no fetch_add.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod ahead;
#[cfg(target_arch = "bpf")]
mod filter;
#[cfg(target_arch = "bpf")]
mod globals;
#[cfg(target_arch = "bpf")]
mod interpreter;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod notice;
#[cfg(target_arch = "bpf")]
mod opening;
#[cfg(target_arch = "bpf")]
mod preempted;
#[cfg(target_arch = "bpf")]
mod programs;
#[cfg(target_arch = "bpf")]
mod record;
#[cfg(target_arch = "bpf")]
mod running;
#[cfg(target_arch = "bpf")]
mod slot;
#[cfg(target_arch = "bpf")]
mod sock;
#[cfg(target_arch = "bpf")]
mod stack;
#[cfg(target_arch = "bpf")]
mod tally;
#[cfg(target_arch = "bpf")]
mod task;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program in which this can be reached.
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
