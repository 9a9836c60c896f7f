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
