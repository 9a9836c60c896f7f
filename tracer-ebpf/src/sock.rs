//! A kernel socket, read through resolved offsets.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use tracer_ebpf::abi::socket::SocketRecord;

use crate::globals::offset;

/// include/net/tcp_states.h
pub(crate) const TCP_ESTABLISHED: u8 = 1;
pub(crate) const TCP_SYN_SENT: u8 = 2;
pub(crate) const TCP_SYN_RECV: u8 = 3;
pub(crate) const TCP_FIN_WAIT1: u8 = 4;
pub(crate) const TCP_TIME_WAIT: u8 = 6;
pub(crate) const TCP_LAST_ACK: u8 = 9;
pub(crate) const TCP_LISTEN: u8 = 10;
pub(crate) const TCP_NEW_SYN_RECV: u8 = 12;

pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;

/// Reads a `T` at `address + offset` of the kernel's memory.
#[inline(always)]
pub(crate) fn read_kernel<T>(address: u64, offset: usize) -> Option<T> {
    // SAFETY: the helper checks the address and fails on a bad one.
    unsafe { bpf_probe_read_kernel((address as *const u8).add(offset).cast::<T>()).ok() }
}

/// The address of a `struct sock`.
#[derive(Clone, Copy)]
pub(crate) struct Sock(pub(crate) u64);

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

impl Sock {
    #[inline(always)]
    pub(crate) fn read<T>(self, offset: usize) -> Option<T> {
        read_kernel(self.0, offset)
    }

    /// `skc_portpair`: the big-endian remote port, then the local port in host order.
    #[inline(always)]
    pub(crate) fn ports(self) -> Option<Ports> {
        self.read(offset!(sock_ports)).map(Ports)
    }

    /// [`Sock::ports`] with a plain load, for the hook that every socket of the machine passes.
    ///
    /// # Safety
    ///
    /// The socket is an argument of a tp_btf, fentry or fexit program: of those alone the verifier
    /// knows the type, and refuses the load of any other.
    #[inline(always)]
    pub(crate) unsafe fn ports_of_argument(self) -> Ports {
        let address = (self.0 as *const u8).wrapping_add(offset!(sock_ports));
        // SAFETY: the kernel passes such a program a socket that is alive.
        Ports(unsafe { address.cast::<u32>().read_volatile() })
    }

    #[inline(always)]
    pub(crate) fn family(self) -> Option<u16> {
        self.read(offset!(sock_family))
    }

    #[inline(always)]
    pub(crate) fn state(self) -> Option<u8> {
        self.read(offset!(sock_state))
    }

    /// `sk_protocol` is u16 since 5.6 (bf9765145b85): the low byte of MPTCP's 262 is TCP's 6.
    #[inline(always)]
    pub(crate) fn is_tcp(self) -> bool {
        self.read::<u16>(offset!(sock_protocol)) == Some(IPPROTO_TCP)
    }

    /// Inode number of the socket's network namespace.
    #[inline(always)]
    pub(crate) fn netns(self) -> Option<u32> {
        let net: u64 = self.read(offset!(sock_net))?;
        read_kernel(net, offset!(net_inode))
    }

    /// (local, remote), in the layout of [`SocketRecord`].
    #[inline(always)]
    pub(crate) fn addresses(self, family: u16) -> ([u8; 16], [u8; 16]) {
        if family == AF_INET6 {
            return (
                self.read(offset!(sock_local_v6)).unwrap_or([0; 16]),
                self.read(offset!(sock_remote_v6)).unwrap_or([0; 16]),
            );
        }
        let mut local = [0; 16];
        let mut remote = [0; 16];
        local[..4].copy_from_slice(&self.read(offset!(sock_local_v4)).unwrap_or([0; 4]));
        remote[..4].copy_from_slice(&self.read(offset!(sock_remote_v4)).unwrap_or([0; 4]));
        (local, remote)
    }

    /// Fills in what the socket itself says: namespace, family, addresses.
    #[inline(always)]
    pub(crate) fn describe(self, record: &mut SocketRecord) {
        record.family = self.family().unwrap_or(0);
        record.netns = self.netns().unwrap_or(0);
        (record.local_addr, record.remote_addr) = self.addresses(record.family);
    }
}
