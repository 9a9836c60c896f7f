//! Loading: the BPF object, its globals filled in from this kernel, and its programs attached.

use std::{io, os::fd::BorrowedFd, path::PathBuf, thread};

use aya::{Btf, Ebpf, EbpfError, EbpfLoader, VerifierLogLevel, include_bytes_aligned};
use bytes::Bytes;
use tracer_ebpf::abi::{
    config::{Config, PortBitmap, STACK_BYTES_MAX, STACK_PAGE_BYTES},
    offsets::Offsets,
};

use super::{
    attach::attach_all,
    btf::{self, ATTACHED, ITERATED, KernelTypes},
    error::KernelError,
    iterators::{self, Walk},
    maps::{Interpreters, Maps, take_map},
    misses::{self, Misses},
    offsets,
    probes::{Family, Probes, Traits},
    ring::Ring,
    slots, support,
};
use crate::memory;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/connleak.bpf.o"));
/// The iterators alone.
static WALKS: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/walks.bpf.o"));

/// What the kernel side is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Ports to watch, at either end.
    pub ports: Vec<u16>,
    /// Force one family for connect, close and accept; `None` takes the best of each.
    pub family: Option<Family>,
    /// BTF of this kernel, where /sys/kernel/btf/vmlinux is missing.
    pub btf: Option<PathBuf>,
    /// Largest stack copy; 0 takes no stacks.
    pub stack_bytes: u32,
    /// Bound of the socket map.
    pub max_sockets: u32,
    /// Size of the event ring; a power of two of pages.
    pub ring_bytes: u32,
    /// Stacks taken in full a second and process; beyond it, one in 256.
    pub stacks_per_second: u32,
    /// Every descendant of this process is known from its first moment.
    pub follow_children: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ports: vec![6379],
            family: None,
            btf: None,
            stack_bytes: 32 * 1024,
            max_sockets: 65_536,
            ring_bytes: 8 * 1024 * 1024,
            stacks_per_second: 200,
            follow_children: false,
        }
    }
}

/// x86_64: THREAD_SIZE is 16 KiB (arch/x86/include/asm/page_64_types.h, without KASAN).
const KERNEL_STACK_BYTES: u32 = 16 * 1024;
const STACK_SAMPLE_MASK: u32 = 255;

/// The kernel side, loaded. Dropping it detaches everything: no program outlives its owner.
pub struct Kernel {
    ebpf: Ebpf,
    /// Megabytes, needed only to load programs.
    btf: Option<Btf>,
    forced: Option<Family>,
    traits: Traits,
    slots: u32,
}

impl Kernel {
    /// Loads the object with `options`, attaching nothing yet.
    ///
    /// # Errors
    ///
    /// Missing privileges, BTF or fields; or the kernel refused a map.
    pub fn load(options: &Options) -> Result<Self, KernelError> {
        Self::load_with(options, true)
    }

    /// Loads it to look only: [`Kernel::walk`] then changes no map.
    ///
    /// # Errors
    ///
    /// As [`Kernel::load`].
    pub fn load_to_look(ports: &[u16], btf: Option<PathBuf>) -> Result<Self, KernelError> {
        let options = Options {
            ports: ports.to_vec(),
            btf,
            max_sockets: 1,
            ring_bytes: STACK_PAGE_BYTES,
            ..Options::default()
        };
        Self::load_with(&options, false)
    }

    fn load_with(options: &Options, seed: bool) -> Result<Self, KernelError> {
        support::raise_memlock();
        let loader = thread::spawn(blank_loader);
        let bytes = btf::read(options.btf.as_deref())?;
        let types = KernelTypes::new(&bytes, options.btf.as_deref())?;
        let offsets: Offsets = offsets::resolve(&types)?;
        let ports = bitmap(&options.ports);
        let traits = Traits {
            accept_arguments: types.accept_arguments(),
            preempts: support::preempts_tracepoints(),
            has_events: offsets.has_events(),
        };
        let slots = slots::beside(options.max_sockets);
        let config = Config {
            own_tgid: std::process::id(),
            stack_pages: options
                .stack_bytes
                .min(STACK_BYTES_MAX)
                .div_ceil(STACK_PAGE_BYTES),
            has_task_pt_regs: u32::from(types.has_helper("task_pt_regs")),
            has_current_task_btf: u32::from(types.has_helper("get_current_task_btf")),
            has_sock_from_file: u32::from(types.has_helper("sock_from_file")),
            seed: u32::from(seed),
            kernel_stack_bytes: KERNEL_STACK_BYTES,
            stacks_per_second: options.stacks_per_second,
            stack_sample_mask: STACK_SAMPLE_MASK,
            follow_children: u32::from(options.follow_children),
            slots,
            only_port: match options.ports[..] {
                [port] => port.into(),
                _ => 0,
            },
            preempts: u32::from(traits.preempts),
        };
        let mut loader = loader.join().unwrap_or_else(|_| EbpfLoader::new());
        if !seed {
            for unused in ["OPENERS", "INTERPRETERS"] {
                loader.map_max_entries(unused, 1);
            }
        }
        // It is told no types: rustc emits nothing that is relocated by them.
        let ebpf = loader
            // The log is made again, in full, when a program is refused.
            .verifier_log_level(VerifierLogLevel::STATS)
            .override_global("OFFSETS", &offsets, true)
            .override_global("CONFIG", &config, true)
            .override_global("PORTS", &ports, true)
            .map_max_entries("SOCKETS", options.max_sockets)
            .map_max_entries("SLOTS", slots.max(1))
            .map_max_entries("SLOT_KEYS", slots.max(1))
            .map_max_entries("EVENTS", options.ring_bytes)
            .load(if seed { OBJECT } else { WALKS })
            .map_err(refused)?;
        Ok(Self {
            ebpf,
            btf: Some(types.attachable(if seed { &ATTACHED } else { &ITERATED })?),
            forced: options.family,
            traits,
            slots,
        })
    }

    /// Attaches every hook; events flow from here on.
    ///
    /// # Errors
    ///
    /// A hook that has no substitute, or that the forced family cannot carry.
    pub fn attach(&mut self) -> Result<Probes, KernelError> {
        let btf = self.btf.as_ref().ok_or(KernelError::TypesReleased)?;
        attach_all(&mut self.ebpf, btf, self.forced, self.traits)
    }

    /// Gives the kernel's types back: every program that needs them is loaded. Of what is walked
    /// later, both walks must have been done once.
    pub fn release_types(&mut self) {
        self.btf = None;
        memory::give_back();
    }

    /// Runs that the kernel left out so far.
    pub fn misses(&self, probes: &Probes) -> Misses {
        misses::of(&self.ebpf, probes)
    }

    /// The ring that events arrive on. It can be taken once.
    ///
    /// # Errors
    ///
    /// It was taken already, or cannot be mapped.
    pub fn take_ring(&mut self) -> Result<Ring, KernelError> {
        Ring::new(take_map(&mut self.ebpf, "EVENTS")?)
    }

    /// The maps that userspace reads.
    ///
    /// # Errors
    ///
    /// They were taken already.
    pub fn take_maps(&mut self) -> Result<Maps, KernelError> {
        Maps::take(&mut self.ebpf, self.traits.preempts, self.slots)
    }

    /// The map that says whose interpreter to follow. It can be taken once.
    ///
    /// # Errors
    ///
    /// It was taken already.
    pub fn take_interpreters(&mut self) -> Result<Interpreters, KernelError> {
        Interpreters::take(&mut self.ebpf)
    }

    /// Walks one of the kernel's lists now, for `decode::open_file`.
    ///
    /// # Errors
    ///
    /// The kernel refused the iterator program, or the walk failed.
    pub fn walk(&mut self, walk: Walk) -> Result<Bytes, KernelError> {
        iterators::run(&mut self.ebpf, self.btf.as_ref(), walk)
    }

    /// As [`Kernel::walk`], and hands over some whole lines at a time: all of them are as much as
    /// the sockets of the machine.
    ///
    /// # Errors
    ///
    /// As [`Kernel::walk`].
    pub fn walk_each(&mut self, walk: Walk, take: impl FnMut(&[u8])) -> Result<(), KernelError> {
        iterators::run_each(&mut self.ebpf, self.btf.as_ref(), walk, take)
    }

    /// As [`Kernel::walk_each`], of a list as another network namespace has it.
    ///
    /// # Errors
    ///
    /// As [`Kernel::walk`], or the namespace could not be entered.
    pub fn walk_each_in(
        &mut self,
        walk: Walk,
        namespace: BorrowedFd<'_>,
        take: impl FnMut(&[u8]) + Send,
    ) -> Result<(), KernelError> {
        iterators::run_each_in(&mut self.ebpf, self.btf.as_ref(), walk, namespace, take)
    }
}

fn bitmap(ports: &[u16]) -> PortBitmap {
    let mut bitmap: PortBitmap = [0; 1024];
    for port in ports {
        bitmap[usize::from(port >> 6)] |= 1 << (port & 63);
    }
    bitmap
}

/// A new loader reads all types of the kernel before it can be told of others, which takes longer
/// than all else that a snapshot does, and 20 MB. To be called by a thread that ends: its root
/// becomes a place without /sys, where there are none to read. Where that is refused it takes
/// longer.
fn blank_loader<'a>() -> EbpfLoader<'a> {
    // SAFETY: the path ends in NUL; the calls change what this thread calls "/", and no other's.
    unsafe {
        if libc::unshare(libc::CLONE_FS) == 0 {
            libc::chroot(c"/proc/self".as_ptr());
        }
    }
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    loader
}

fn refused(error: EbpfError) -> KernelError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>()
            && matches!(io.raw_os_error(), Some(libc::EPERM | libc::EACCES))
        {
            return KernelError::NotPermitted;
        }
        cause = inner.source();
    }
    KernelError::Object(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::bitmap;

    #[test]
    fn bitmap_has_exactly_the_ports_given() {
        let bits = bitmap(&[6379, 65_535, 0]);
        let set: Vec<usize> = (0..=65_535)
            .filter(|&port| bits[port >> 6] & (1 << (port & 63)) != 0)
            .collect();
        assert_eq!(set, [0, 6379, 65_535]);
    }
}
