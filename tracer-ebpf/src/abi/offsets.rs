//! The offsets of kernel fields, resolved from the running kernel's BTF when the programs are loaded.
//!
//! rustc emits no CO-RE relocations, and an offset of another kernel reads garbage silently, so
//! none is baked in: userspace walks [`Offsets::FIELDS`] and refuses to start when one is missing
//! that is required.

/// Where to find an offset in BTF.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The struct's name.
    pub of: &'static str,
    /// Member path from that struct; anonymous members are looked through.
    pub path: &'static str,
}

impl Field {
    /// Without the fields of perf's events a kernel is traced by other programs: their offset is 0,
    /// where every event has its common header. And a file's references, which are only fetched
    /// ahead, lay near its start before they had this name (6.13).
    pub fn is_required(&self) -> bool {
        !self.of.starts_with("trace_event_raw_") && self.path != "f_ref"
    }
}

macro_rules! offsets {
    ($($name:ident = $of:literal . $path:literal),+ $(,)?) => {
        /// Byte offsets from the start of the named struct.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Offsets {
            $(#[doc = concat!("`", $of, ".", $path, "`")] pub $name: u32,)+
        }

        impl Offsets {
            /// One for each member, in the order of the members.
            pub const FIELDS: &'static [Field] = &[$(Field { of: $of, path: $path }),+];
            pub const ZERO: Self = Self { $($name: 0),+ };

            /// From the offsets of [`Offsets::FIELDS`], in that order.
            pub fn from_resolved(mut next: impl FnMut() -> Option<u32>) -> Option<Self> {
                Some(Self { $($name: next()?),+ })
            }
        }
    };
}

offsets! {
    sock_ports = "sock" . "__sk_common.skc_portpair",
    sock_family = "sock" . "__sk_common.skc_family",
    sock_state = "sock" . "__sk_common.skc_state",
    sock_local_v4 = "sock" . "__sk_common.skc_rcv_saddr",
    sock_remote_v4 = "sock" . "__sk_common.skc_daddr",
    sock_local_v6 = "sock" . "__sk_common.skc_v6_rcv_saddr",
    sock_remote_v6 = "sock" . "__sk_common.skc_v6_daddr",
    sock_net = "sock" . "__sk_common.skc_net",
    sock_protocol = "sock" . "sk_protocol",
    sock_flags = "sock" . "__sk_common.skc_flags",
    sock_socket = "sock" . "sk_socket",
    net_inode = "net" . "ns.inum",
    inet_source_port = "inet_sock" . "inet_sport",
    icsk_last_receive = "inet_connection_sock" . "icsk_ack.lrcvtime",
    tcp_last_send = "tcp_sock" . "lsndtime",
    tcp_received_next = "tcp_sock" . "rcv_nxt",
    tcp_copied = "tcp_sock" . "copied_seq",
    tcp_written = "tcp_sock" . "write_seq",
    tcp_acknowledged = "tcp_sock" . "snd_una",
    tcp_bytes_received = "tcp_sock" . "bytes_received",
    tcp_bytes_sent = "tcp_sock" . "bytes_sent",
    task_tgid = "task_struct" . "tgid",
    task_leader = "task_struct" . "group_leader",
    task_start = "task_struct" . "start_boottime",
    task_flags = "task_struct" . "flags",
    task_stack = "task_struct" . "stack",
    task_comm = "task_struct" . "comm",
    task_signal = "task_struct" . "signal",
    task_mm = "task_struct" . "mm",
    task_files = "task_struct" . "files",
    files_table = "files_struct" . "fdt",
    table_max = "fdtable" . "max_fds",
    table_fd = "fdtable" . "fd",
    task_fsbase = "task_struct" . "thread.fsbase",
    signal_live = "signal_struct" . "live",
    mm_start_stack = "mm_struct" . "start_stack",
    file_inode = "file" . "f_inode",
    file_operations = "file" . "f_op",
    file_private = "file" . "private_data",
    file_references = "file" . "f_ref",
    inode_mode = "inode" . "i_mode",
    socket_sock = "socket" . "sk",
    regs_ip = "pt_regs" . "ip",
    regs_sp = "pt_regs" . "sp",
    regs_fp = "pt_regs" . "bp",
    regs_cs = "pt_regs" . "cs",
    event_state_sock = "trace_event_raw_inet_sock_set_state" . "skaddr",
    event_state_old = "trace_event_raw_inet_sock_set_state" . "oldstate",
    event_state_new = "trace_event_raw_inet_sock_set_state" . "newstate",
    event_destroy_sock = "trace_event_raw_tcp_event_sk" . "skaddr",
}

impl Offsets {
    /// Are perf's events of this kernel as known here?
    pub fn has_events(&self) -> bool {
        self.event_state_sock != 0 && self.event_destroy_sock != 0
    }
}

const _: () = assert!(size_of::<Offsets>() == 4 * Offsets::FIELDS.len());

#[cfg(feature = "user")]
// SAFETY: repr(C), u32 fields only, no padding: any bytes are a value.
unsafe impl aya::Pod for Offsets {}
