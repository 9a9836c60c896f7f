//! An open file: one line of the iterator over all processes' files that are TCP sockets.

/// A watched socket as one process holds it through one file descriptor, or (from the iterator
/// over the TCP hash tables) as the kernel holds it with no process, `tgid` 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// Address of the `struct sock`, the key in `SOCKETS`.
    pub socket: u64,
    /// `start_boottime` of the holder's thread group leader.
    pub holder_start_ns: u64,
    pub reserved: u64,
    /// What was received and sent, the queues and the times are zeroes of a server end and of a
    /// listener.
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// The kernel's jiffies at `monotonic_ns` (CLOCK_MONOTONIC): together they tell its HZ.
    pub jiffies: u64,
    pub monotonic_ns: u64,
    pub holder_tgid: u32,
    pub fd: u32,
    pub netns: u32,
    /// Received, not yet read by the application.
    pub receive_queue_bytes: u32,
    /// Written by the application, not yet acknowledged.
    pub send_queue_bytes: u32,
    /// Since data was last received or sent; jiffies, as the kernel's HZ is not known here.
    pub idle_jiffies: u32,
    pub family: u16,
    pub local_port: u16,
    pub remote_port: u16,
    pub state: u8,
    pub padding: u8,
    pub local_addr: [u8; 16],
    pub remote_addr: [u8; 16],
    pub holder_comm: [u8; 16],
}

const _: () = assert!(size_of::<OpenFile>() == 136);

impl OpenFile {
    pub const ZERO: Self = Self {
        socket: 0,
        holder_start_ns: 0,
        reserved: 0,
        bytes_received: 0,
        bytes_sent: 0,
        jiffies: 0,
        monotonic_ns: 0,
        holder_tgid: 0,
        fd: 0,
        netns: 0,
        receive_queue_bytes: 0,
        send_queue_bytes: 0,
        idle_jiffies: 0,
        family: 0,
        local_port: 0,
        remote_port: 0,
        state: 0,
        padding: 0,
        local_addr: [0; 16],
        remote_addr: [0; 16],
        holder_comm: [0; 16],
    };
}
