//! A probe: which hook of the kernel gives each kind of event, and what is lost without it.

use std::fmt;

use serde::Serialize;

/// What a program is attached to, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    Fentry,
    Kprobe,
    /// BTF tracepoints where the kernel has them, raw tracepoints else.
    Tracepoint,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        })
    }
}

/// A kind of event that the kernel side delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Connect,
    Close,
    Destroy,
    State,
    Accept,
    Fork,
    Exec,
    Exit,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Close => "close",
            Self::Destroy => "destroy",
            Self::State => "state",
            Self::Accept => "accept",
            Self::Fork => "fork",
            Self::Exec => "exec",
            Self::Exit => "exit",
        })
    }
}

/// One way to attach one hook: a program of the BPF object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) program: &'static str,
    pub(super) kind: Kind,
    /// The kernel function or tracepoint.
    pub(super) target: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Fentry,
    Fexit,
    Kprobe,
    Kretprobe,
    BtfTracepoint,
    RawTracepoint,
}

impl Kind {
    pub(super) fn family(self) -> Family {
        match self {
            Self::Fentry | Self::Fexit => Family::Fentry,
            Self::Kprobe | Self::Kretprobe => Family::Kprobe,
            Self::BtfTracepoint | Self::RawTracepoint => Family::Tracepoint,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
            Self::Kretprobe => "kretprobe",
            Self::BtfTracepoint => "tp_btf",
            Self::RawTracepoint => "raw_tp",
        }
    }
}

/// The ways to attach `hook`, best first.
///
/// `accept_arguments` is the number of arguments of `inet_csk_accept` on this kernel: fexit finds
/// the result behind them.
/// `connect_is_hooked`: the state hook need not stand in for connect.
pub(super) fn candidates(
    hook: Hook,
    connect_is_hooked: bool,
    accept_arguments: Option<usize>,
) -> Vec<Candidate> {
    let of = |program, kind, target| Candidate {
        program,
        kind,
        target,
    };
    let tracepoint = |btf, raw, target| {
        vec![
            of(btf, Kind::BtfTracepoint, target),
            of(raw, Kind::RawTracepoint, target),
        ]
    };
    match hook {
        Hook::Connect => vec![
            of("connect_fentry", Kind::Fentry, "tcp_connect"),
            of("connect_kprobe", Kind::Kprobe, "tcp_connect"),
        ],
        Hook::Close => vec![
            of("close_fentry", Kind::Fentry, "tcp_close"),
            of("close_kprobe", Kind::Kprobe, "tcp_close"),
        ],
        Hook::Accept => {
            let fexit = match accept_arguments {
                Some(4) => Some("accept_fexit_4"),
                Some(2) => Some("accept_fexit_2"),
                _ => None,
            };
            fexit
                .map(|program| of(program, Kind::Fexit, "inet_csk_accept"))
                .into_iter()
                .chain([of("accept_kretprobe", Kind::Kretprobe, "inet_csk_accept")])
                .collect()
        }
        Hook::Destroy => tracepoint("destroy_btf", "destroy_raw", "tcp_destroy_sock"),
        Hook::State if connect_is_hooked => {
            tracepoint("state_btf", "state_raw", "inet_sock_set_state")
        }
        Hook::State => tracepoint(
            "state_connect_btf",
            "state_connect_raw",
            "inet_sock_set_state",
        ),
        Hook::Fork => tracepoint("fork_btf", "fork_raw", "sched_process_fork"),
        Hook::Exec => tracepoint("exec_btf", "exec_raw", "sched_process_exec"),
        Hook::Exit => tracepoint("exit_btf", "exit_raw", "sched_process_exit"),
    }
}

/// The program that hangs beside `program`, and does what the kernel leaves out of it.
pub(super) fn twin(program: &str) -> Option<&'static str> {
    match program {
        "destroy_btf" => Some("destroy_again_btf"),
        "destroy_raw" => Some("destroy_again_raw"),
        "state_btf" => Some("state_again_btf"),
        "state_raw" => Some("state_again_raw"),
        "state_connect_btf" => Some("state_connect_again_btf"),
        "state_connect_raw" => Some("state_connect_again_raw"),
        _ => None,
    }
}

/// A twin's own misses are none: it has nothing to do then.
pub(super) fn is_twin(program: &str) -> bool {
    program.contains("_again_")
}

/// What a hook without a program of its own falls back to, and what that loses.
pub(super) fn substitute(hook: Hook) -> Option<(&'static str, &'static str)> {
    match hook {
        Hook::Connect => Some((
            "state",
            "nothing: SYN_SENT is set by connect alone, in the caller",
        )),
        Hook::Close => Some((
            "state+destroy",
            "a close is told from a half close only when the socket is destroyed",
        )),
        Hook::Accept => Some((
            "listener",
            "server ends are shown under the listener's holder",
        )),
        _ => None,
    }
}

/// A program that is attached, with what its verification took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramCost {
    pub name: String,
    /// Instructions the verifier processed (kernel 5.16; `None` before).
    pub verified_insns: Option<u32>,
}

/// Which way each hook took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    pub taken: Vec<(Hook, &'static str)>,
    /// Hooks that fell back, with what that loses.
    pub losses: Vec<(Hook, &'static str)>,
    pub programs: Vec<ProgramCost>,
}

impl Probes {
    pub fn loss_of(&self, hook: Hook) -> Option<&'static str> {
        self.losses
            .iter()
            .find_map(|&(lost, what)| (lost == hook).then_some(what))
    }

    pub fn taken_by(&self, hook: Hook) -> Option<&'static str> {
        self.taken
            .iter()
            .find_map(|&(taken, by)| (taken == hook).then_some(by))
    }
}
