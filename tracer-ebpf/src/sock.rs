//! A kernel socket, read through resolved offsets.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use tracer_ebpf::abi::socket::SocketRecord;

use crate::globals::offset;

/// include/net/tcp_states.h
pub(crate) const TCP_ESTABLISHED: u8 = 1;
pub(crate) const TCP_SYN_SENT: u8 = 2;
pub(crate) const TCP_SYN_RECV: u8 = 3;
pub(crate) const TCP_FIN_WAIT1: u8 = 4;
pub(crate) const TCP_FIN_WAIT2: u8 = 5;
pub(crate) const TCP_TIME_WAIT: u8 = 6;
pub(crate) const TCP_CLOSE: u8 = 7;
pub(crate) const TCP_LAST_ACK: u8 = 9;
pub(crate) const TCP_LISTEN: u8 = 10;
pub(crate) const TCP_NEW_SYN_RECV: u8 = 12;

pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
/// include/net/sock.h, `enum sock_flags`: SOCK_DEAD is its first.
const SOCK_DEAD: u64 = 1 << 0;

/// Reads a `T` at `address + offset` of the kernel's memory.
#[inline(always)]
pub(crate) fn read_kernel<T>(address: u64, offset: usize) -> Option<T> {
    // SAFETY: the helper checks the address and fails on a bad one.
    unsafe { bpf_probe_read_kernel((address as *const u8).add(offset).cast::<T>()).ok() }
}

/// A socket's two ports, as they lie in `struct sock_common`.
#[derive(Clone, Copy)]
pub(crate) struct Ports(u32);

impl Ports {
    #[inline(always)]
    pub(crate) fn remote(self) -> u16 {
        (self.0 as u16).swap_bytes()
    }

    #[inline(always)]
    pub(crate) fn local(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// The fields of a `struct sock`.
pub(crate) trait SockFields: Copy {
    fn address(self) -> u64;

    /// Reads a `T` at `offset`, which lies within `struct sock`.
    fn read<T>(self, offset: usize) -> Option<T>;

    /// Inode number of the socket's network namespace.
    fn netns(self) -> Option<u32>;

    /// `skc_portpair`: the big-endian remote port, then the local port in host order.
    #[inline(always)]
    fn ports(self) -> Option<Ports> {
        self.read(offset!(sock_ports)).map(Ports)
    }

    /// `inet_sport`, which lies behind `struct sock`.
    #[inline(always)]
    fn source_port(self) -> Option<u16> {
        read_kernel::<u16>(self.address(), offset!(inet_source_port)).map(u16::swap_bytes)
    }

    #[inline(always)]
    fn family(self) -> Option<u16> {
        self.read(offset!(sock_family))
    }

    #[inline(always)]
    fn state(self) -> Option<u8> {
        self.read(offset!(sock_state))
    }

    /// `sk_protocol` is u16 since 5.6 (bf9765145b85): the low byte of MPTCP's 262 is TCP's 6.
    #[inline(always)]
    fn is_tcp(self) -> bool {
        self.read::<u16>(offset!(sock_protocol)) == Some(IPPROTO_TCP)
    }

    /// No process has it any more (`sock_orphan`).
    #[inline(always)]
    fn is_dead(self) -> bool {
        self.read::<u64>(offset!(sock_flags)).unwrap_or(0) & SOCK_DEAD != 0
    }

    /// A process's socket has it. The server end of a connection has none until it is accepted.
    #[inline(always)]
    fn is_anyones(self) -> bool {
        self.read::<u64>(offset!(sock_socket))
            .is_none_or(|socket| socket != 0)
    }

    #[inline(always)]
    fn local_address(self, family: u16) -> [u8; 16] {
        self.ip_address(family, offset!(sock_local_v4), offset!(sock_local_v6))
    }

    #[inline(always)]
    fn remote_address(self, family: u16) -> [u8; 16] {
        self.ip_address(family, offset!(sock_remote_v4), offset!(sock_remote_v6))
    }

    /// In the layout of [`SocketRecord`].
    #[inline(always)]
    fn ip_address(self, family: u16, v4: usize, v6: usize) -> [u8; 16] {
        let words = if family == AF_INET6 {
            self.read(v6).unwrap_or([0; 4])
        } else {
            [self.read::<u32>(v4).unwrap_or(0), 0, 0, 0]
        };
        // SAFETY: both are 16 bytes of which any are a value.
        unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) }
    }

    /// Fills in what the socket itself says: namespace, family, addresses.
    #[inline(always)]
    fn describe(self, record: &mut SocketRecord) {
        let family = self.family().unwrap_or(0);
        record.family = family;
        record.netns = self.netns().unwrap_or(0);
        record.local_addr = self.local_address(family);
        record.remote_addr = self.remote_address(family);
    }
}

/// The address of a `struct sock`, which helpers read.
#[derive(Clone, Copy)]
pub(crate) struct Sock(pub(crate) u64);

impl SockFields for Sock {
    #[inline(always)]
    fn address(self) -> u64 {
        self.0
    }

    #[inline(always)]
    fn read<T>(self, offset: usize) -> Option<T> {
        read_kernel(self.0, offset)
    }

    #[inline(always)]
    fn netns(self) -> Option<u32> {
        let net: u64 = self.read(offset!(sock_net))?;
        read_kernel(net, offset!(net_inode))
    }
}

/// A `struct sock` that plain loads read, without the call of a helper for each: every socket of
/// the machine passes the hooks.
#[derive(Clone, Copy)]
pub(crate) struct SockArgument(u64);

impl SockArgument {
    /// # Safety
    ///
    /// It is an argument of a tp_btf, fentry or fexit program, or what a helper returned: of those
    /// alone the verifier knows the type, and refuses the loads of any other.
    #[inline(always)]
    pub(crate) unsafe fn new(address: u64) -> Self {
        Self(address)
    }
}

impl SockFields for SockArgument {
    #[inline(always)]
    fn address(self) -> u64 {
        self.0
    }

    #[inline(always)]
    fn read<T>(self, offset: usize) -> Option<T> {
        // SAFETY: by `new` the verifier has checked it.
        Some(unsafe { load(self.0, offset) })
    }

    #[inline(always)]
    fn netns(self) -> Option<u32> {
        let (net, inode) = (offset!(sock_net), offset!(net_inode));
        // SAFETY: as above; `skc_net` is a `struct net *`, of which the verifier knows as much.
        Some(unsafe { load(load(self.0, net), inode) })
    }
}

/// A load that the compiler leaves alone: it is the very instruction that the verifier judges.
///
/// # Safety
///
/// The verifier knows the type of what is at `address`, and so guards the load against a fault.
#[inline(always)]
pub(crate) unsafe fn load<T>(address: u64, offset: usize) -> T {
    // SAFETY: the caller's promise.
    unsafe {
        (address as *const u8)
            .wrapping_add(offset)
            .cast::<T>()
            .read_volatile()
    }
}
