//! A socket record: what the kernel side remembers of one watched socket, the value of `SOCKETS`.

use core::mem::offset_of;

/// `SocketRecord::flags`: the watched port is the local one.
pub const SERVER_END: u8 = 1 << 0;
/// `SocketRecord::flags`: opened before tracing started, found by the open-file iterator.
pub const SEEDED: u8 = 1 << 1;
/// `SocketRecord::flags`: connect ran on an io_uring worker or another kernel thread.
pub const KERNEL_WORKER: u8 = 1 << 2;
/// `SocketRecord::flags`: opened by connleak itself; never counted.
pub const OWN: u8 = 1 << 3;
/// `SocketRecord::flags`: the stack was taken, but the ring had no room for it.
pub const STACK_LOST: u8 = 1 << 4;
/// `SocketRecord::flags`: the stack was not taken, because its process connects too often.
pub const STACK_SPARED: u8 = 1 << 5;
/// `SocketRecord::flags`: connect's program was left out, because it ran on that CPU already. Its
/// stack was neither lost nor spared, so the two together are free to say it.
pub const STACK_MISSED: u8 = STACK_LOST | STACK_SPARED;
/// `SocketRecord::flags`: a FIN was sent: the application closed it, or shut it down.
pub const LET_GO: u8 = 1 << 6;
/// `SocketRecord::flags`: it was let go only because the last process that held it ended.
pub const ABANDONED: u8 = 1 << 7;

/// One watched socket. Its key in `SOCKETS` is the address of its `struct sock`; an address is
/// used again after a socket's end, so (address, `opened_ns`) names a socket for good.
///
/// All times are nanoseconds of CLOCK_BOOTTIME, 0 where the event has not happened.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketRecord {
    /// connect was called, or a server end was first seen established. 0 for what is older than
    /// tracing.
    pub opened_ns: u64,
    /// The application let go (`tcp_close`); the socket may linger in FIN_WAIT or LAST_ACK.
    pub released_ns: u64,
    /// The last change of `state`.
    pub changed_ns: u64,
    /// `start_boottime` of the opener's thread group leader: with `opener_tgid` its identity.
    pub opener_start_ns: u64,
    /// 0 while the opener is not known.
    pub opener_tgid: u32,
    pub opener_tid: u32,
    /// AF_INET or AF_INET6.
    pub family: u16,
    pub local_port: u16,
    pub remote_port: u16,
    /// `TCP_ESTABLISHED` = 1 and so on, as in include/net/tcp_states.h.
    pub state: u8,
    pub flags: u8,
    pub established_ns: u64,
    pub opener_uid: u32,
    /// Inode number of the network namespace (`/proc/PID/ns/net`).
    pub netns: u32,
    /// Network byte order; the first four bytes where `family` is AF_INET.
    pub local_addr: [u8; 16],
    pub remote_addr: [u8; 16],
    /// The opening thread's `comm`, for processes that end before anyone reads /proc.
    pub opener_comm: [u8; 16],
}

/// Value of `SOCKETS` and of `SLOTS`: a record, and the place of its latest notice.
///
/// Two cache lines. What changes during a socket's life is in the first, the second is written when
/// it begins: on loopback one CPU does the beginning and another the end, and a line that both
/// write has to go from one to the other.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackedSocket {
    /// Whose the slot is, the address of a `struct sock`; 0 of one that is free, and in `SOCKETS`.
    pub address: u64,
    /// One more than the ring's producer position before the notice was sent; 0 if there was none.
    pub noticed_at: u64,
    pub record: SocketRecord,
}

impl TrackedSocket {
    pub const ZERO: Self = Self {
        address: 0,
        noticed_at: 0,
        record: SocketRecord::ZERO,
    };
}

const _: () = {
    const LINE: usize = 64;
    assert!(size_of::<TrackedSocket>() == 2 * LINE);
    assert!(offset_of!(TrackedSocket, record) + offset_of!(SocketRecord, established_ns) == LINE);
    assert!(size_of::<SocketRecord>() == 112);
    assert!(offset_of!(SocketRecord, family) == 40);
    assert!(offset_of!(SocketRecord, local_addr) == 64);
};

impl SocketRecord {
    pub const ZERO: Self = Self {
        opened_ns: 0,
        released_ns: 0,
        changed_ns: 0,
        opener_start_ns: 0,
        opener_tgid: 0,
        opener_tid: 0,
        family: 0,
        local_port: 0,
        remote_port: 0,
        state: 0,
        flags: 0,
        established_ns: 0,
        opener_uid: 0,
        netns: 0,
        local_addr: [0; 16],
        remote_addr: [0; 16],
        opener_comm: [0; 16],
    };

    /// A slot whose socket has ended, or where one is about to begin.
    pub const fn is_vacant(&self) -> bool {
        self.opened_ns == 0 && self.flags & SEEDED == 0
    }
}

/// Key of `OPENERS`: a process for good, as a PID alone is not.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpenerKey {
    pub start_ns: u64,
    pub tgid: u32,
    pub padding: u32,
}

/// Value of `OPENERS`: what a process did since tracing started, whatever the ring lost.
///
/// An entry of the hash has 64 bytes of its own before it. Sockets are mostly destroyed on another
/// CPU than their process runs on, so what each of the two counts has a cache line of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenerCounts {
    /// Sockets it called connect on.
    pub opened: u64,
    /// Start of the second in which `in_window` connects were counted.
    pub window_ns: u64,
    pub in_window: u64,
    /// 1 for a process that connleak started, and for its descendants.
    pub followed: u64,
    pub padding: [u64; 4],
    /// Of the opened, the ones that are over: destroyed, or connected once more.
    pub closed: u64,
    pub more_padding: [u64; 7],
}

impl OpenerCounts {
    pub const ZERO: Self = Self {
        opened: 0,
        window_ns: 0,
        in_window: 0,
        followed: 0,
        padding: [0; 4],
        closed: 0,
        more_padding: [0; 7],
    };
}

const _: () = {
    assert!(size_of::<OpenerKey>() == 16);
    assert!(offset_of!(OpenerCounts, closed) == 64);
    assert!(size_of::<OpenerCounts>() == 128);
};

#[cfg(feature = "user")]
mod user {
    use super::{OpenerCounts, OpenerKey, TrackedSocket};

    // SAFETY: repr(C), integers and byte arrays only, padding explicit: any bytes are a value.
    unsafe impl aya::Pod for TrackedSocket {}
    // SAFETY: as above.
    unsafe impl aya::Pod for OpenerKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for OpenerCounts {}
}
