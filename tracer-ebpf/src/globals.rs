//! The read-only globals that userspace fills in before loading.

use tracer_ebpf::abi::{
    config::{Config, PortBitmap},
    offsets::Offsets,
};

// Read volatile: the compiler must not take the zeroes written here for the values.
#[unsafe(no_mangle)]
static CONFIG: Config = Config::ZERO;
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::ZERO;
#[unsafe(no_mangle)]
static PORTS: PortBitmap = [0; 1024];

/// Reads one field of `CONFIG`.
macro_rules! config {
    ($field:ident) => {{
        // SAFETY: a field of a static is valid and aligned.
        unsafe { core::ptr::read_volatile(&raw const $crate::globals::config_global().$field) }
    }};
}

/// Reads one field of `OFFSETS`, as a byte count.
macro_rules! offset {
    ($field:ident) => {{
        // SAFETY: a field of a static is valid and aligned.
        unsafe {
            core::ptr::read_volatile(&raw const $crate::globals::offsets_global().$field) as usize
        }
    }};
}

pub(crate) use {config, offset};

#[inline(always)]
pub(crate) fn config_global() -> &'static Config {
    &CONFIG
}

#[inline(always)]
pub(crate) fn offsets_global() -> &'static Offsets {
    &OFFSETS
}

#[inline(always)]
pub(crate) fn port_is_watched(port: u16) -> bool {
    let only_port = config!(only_port);
    if only_port != 0 {
        return u32::from(port) == only_port;
    }
    // SAFETY: `port >> 6` is at most 1023, the last index of the bitmap.
    let word = unsafe { core::ptr::read_volatile(PORTS.as_ptr().add((port >> 6) as usize)) };
    word & (1 << (port & 63)) != 0
}
