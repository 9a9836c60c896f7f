//! Ended: the marks by which userspace knows that a socket's life is over, without asking.
//!
//! `ENDED` is mapped into userspace. Its slots are few and shared: a mark that stands there is
//! proof, and one that does not says nothing. The proof is `SOCKETS`, asked next. Of a slot no mark
//! is needed: it is mapped itself.

/// Slots of `ENDED`.
pub const ENDED_SLOTS: u32 = 1 << 13;

/// One life of one socket.
///
/// Its two words are not written at once. Who reads a mark in halves reads an address and a
/// nanosecond that belong to two sockets, which no third one has.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndedMark {
    /// Of the `struct sock`.
    pub address: u64,
    pub opened_ns: u64,
}

/// 2^64 divided by the golden ratio: lives that began one after the other lie far apart.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The slot of a life. Of its time, as the verifier lets nobody reckon with an address.
#[inline(always)]
pub fn slot(opened_ns: u64) -> u32 {
    (opened_ns.wrapping_mul(SPREAD) >> 32) as u32 % ENDED_SLOTS
}
