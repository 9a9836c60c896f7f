//! A slot: one of the fixed places of `SLOTS`, each for the sockets at one address.
//!
//! Two arrays, both mapped into userspace: `SLOTS` of `TrackedSocket`, and `SLOT_KEYS` with the
//! address whose slot it is. The hash of an address says which slot may be its own. The keys change
//! seldom, so that each CPU has its own copy of what it needs of them; the records change hands
//! between CPUs.

/// The most slots there are: of 128 bytes, a megabyte.
pub const SLOTS_MAX: u32 = 1 << 13;

/// In a key: no record begins here any more. Userspace says it, and takes the slot back once no
/// program can still be at it.
pub const LEAVING: u64 = 1;

/// 2^32 divided by the golden ratio: neighbours in a slab lie far apart.
const SPREAD: u32 = 0x9e37_79b9;

/// The slot of an address with this low half, among `slots`, a power of two.
#[inline(always)]
pub const fn index(low_half: u32, slots: u32) -> u32 {
    low_half.wrapping_mul(SPREAD) >> 16 & (slots - 1)
}
