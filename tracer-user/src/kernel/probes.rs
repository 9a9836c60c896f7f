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
    pub(super) twins: Twins,
}

/// The programs that hang beside another, and do what the kernel leaves out of it: one that asks
/// whether it is running, or two that ask what it has done.
pub(super) type Twins = &'static [(&'static str, Kind)];

/// As [`Probes::taken`] has it.
pub const PERF_TRACEPOINT: &str = "perf_tp";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Fentry,
    Fexit,
    Kprobe,
    Kretprobe,
    BtfTracepoint,
    RawTracepoint,
    /// A tracepoint by way of perf, which disables preemption.
    PerfTracepoint,
}

impl Kind {
    pub(super) fn family(self) -> Family {
        match self {
            Self::Fentry | Self::Fexit => Family::Fentry,
            Self::Kprobe | Self::Kretprobe => Family::Kprobe,
            Self::BtfTracepoint | Self::RawTracepoint | Self::PerfTracepoint => Family::Tracepoint,
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
            Self::PerfTracepoint => PERF_TRACEPOINT,
        }
    }
}

/// What the choice of a program depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traits {
    /// The number of arguments of `inet_csk_accept`: fexit finds the result behind them.
    pub(super) accept_arguments: Option<usize>,
    /// Programs of tracepoints can be preempted, except perf's.
    pub(super) preempts: bool,
    /// Perf's events are as known here.
    pub(super) has_events: bool,
}

/// The ways to attach `hook`, best first.
///
/// `connect_is_hooked`: the state hook need not stand in for connect.
pub(super) fn candidates(hook: Hook, connect_is_hooked: bool, kernel: Traits) -> Vec<Candidate> {
    let of = |program, kind, target| Candidate {
        program,
        kind,
        target,
        twins: twins(program),
    };
    let tracepoint = |btf, raw, target| {
        vec![
            of(btf, Kind::BtfTracepoint, target),
            of(raw, Kind::RawTracepoint, target),
        ]
    };
    let unpreempted = |perf, btf, raw, target| {
        let mut ways = tracepoint(btf, raw, target);
        if kernel.preempts && kernel.has_events {
            ways.insert(0, of(perf, Kind::PerfTracepoint, target));
        }
        ways
    };
    match hook {
        Hook::Connect if kernel.preempts => vec![
            Candidate {
                twins: &[
                    ("connect_beside_fentry", Kind::Fentry),
                    ("connect_beside_last_fentry", Kind::Fentry),
                ],
                ..of("connect_fentry", Kind::Fentry, "tcp_connect")
            },
            of("connect_kprobe", Kind::Kprobe, "tcp_connect"),
        ],
        Hook::Connect => vec![
            of("connect_fentry", Kind::Fentry, "tcp_connect"),
            of("connect_kprobe", Kind::Kprobe, "tcp_connect"),
        ],
        // kprobe's are not preempted.
        Hook::Close if kernel.preempts => vec![
            of("close_kprobe", Kind::Kprobe, "tcp_close"),
            of("close_fentry", Kind::Fentry, "tcp_close"),
        ],
        Hook::Close => vec![
            of("close_fentry", Kind::Fentry, "tcp_close"),
            of("close_kprobe", Kind::Kprobe, "tcp_close"),
        ],
        Hook::Accept => {
            let fexit = match kernel.accept_arguments {
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
        Hook::Destroy => unpreempted(
            "destroy_perf",
            "destroy_btf",
            "destroy_raw",
            "tcp_destroy_sock",
        ),
        Hook::State if connect_is_hooked => unpreempted(
            "state_perf",
            "state_btf",
            "state_raw",
            "inet_sock_set_state",
        ),
        Hook::State => unpreempted(
            "state_connect_perf",
            "state_connect_btf",
            "state_connect_raw",
            "inet_sock_set_state",
        ),
        Hook::Fork if kernel.preempts => vec![Candidate {
            twins: &[
                ("fork_beside_btf", Kind::BtfTracepoint),
                ("fork_beside_last_btf", Kind::BtfTracepoint),
            ],
            ..of("fork_btf", Kind::BtfTracepoint, "sched_process_fork")
        }],
        Hook::Fork => tracepoint("fork_btf", "fork_raw", "sched_process_fork"),
        Hook::Exec => unpreempted("exec_perf", "exec_btf", "exec_raw", "sched_process_exec"),
        Hook::Exit => unpreempted("exit_perf", "exit_btf", "exit_raw", "sched_process_exit"),
    }
}

fn twins(program: &str) -> Twins {
    use Kind::{BtfTracepoint as Btf, RawTracepoint as Raw};
    match program {
        "destroy_btf" => &[("destroy_again_btf", Btf)],
        "destroy_raw" => &[("destroy_again_raw", Raw)],
        "destroy_perf" => &[
            ("destroy_beside_btf", Btf),
            ("destroy_beside_last_btf", Btf),
        ],
        "state_btf" => &[("state_again_btf", Btf)],
        "state_raw" => &[("state_again_raw", Raw)],
        "state_perf" => &[("state_beside_btf", Btf), ("state_beside_last_btf", Btf)],
        "state_connect_btf" => &[("state_connect_again_btf", Btf)],
        "state_connect_raw" => &[("state_connect_again_raw", Raw)],
        "state_connect_perf" => &[
            ("state_connect_beside_btf", Btf),
            ("state_connect_beside_last_btf", Btf),
        ],
        _ => &[],
    }
}

/// The category of a tracepoint in tracefs, which perf's programs are attached by.
pub(super) fn category(tracepoint: &str) -> &'static str {
    match tracepoint.split_once('_') {
        Some(("tcp", _)) => "tcp",
        Some(("sched", _)) => "sched",
        _ => "sock",
    }
}

/// What is lost where perf does not take a program: see [`Kind::PerfTracepoint`].
pub const PREEMPTED: &str = "what other processes do on a CPU while this kernel preempts the \
     program there, until the next reconcile";

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

/// A tracepoint's program that the kernel refused, and what carries its hook instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) hook: Hook,
    pub(super) taken: &'static str,
    pub(super) refused: &'static str,
    pub(super) cause: String,
}

/// Which way each hook took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    pub taken: Vec<(Hook, &'static str)>,
    /// Hooks that fell back, with what that loses: "nothing", where it is nothing.
    pub losses: Vec<(Hook, &'static str)>,
    /// [`Probes::taken`] does not show these: both ways are tracepoints, which every kernel has.
    pub(super) refusals: Vec<Refusal>,
    pub programs: Vec<ProgramCost>,
    /// The attached programs that are no twins, each with its own.
    pub(super) mains: Vec<(&'static str, Twins)>,
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

    /// What the kernel refused of tracepoints, though it carries them all: a line for those that
    /// lose alike, with what it said of the first.
    pub fn refusals(&self) -> Vec<String> {
        let mut lines: Vec<(String, String, &str)> = Vec::new();
        for refusal in &self.refusals {
            let how = format!(
                "by {}; lost: {}; this kernel refuses {}",
                refusal.taken,
                self.loss_of(refusal.hook).unwrap_or("nothing"),
                refusal.refused
            );
            match lines.iter_mut().find(|(_, alike, _)| *alike == how) {
                Some((hooks, ..)) => *hooks = format!("{hooks}, {}", refusal.hook),
                None => lines.push((refusal.hook.to_string(), how, &refusal.cause)),
            }
        }
        let lines = lines.into_iter();
        lines
            .map(|(hooks, how, cause)| format!("{hooks} {how}: {cause}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_that_are_alike_are_one_line() {
        let refusal = |hook, taken, refused| Refusal {
            hook,
            taken,
            refused,
            cause: format!("unknown type of {hook}"),
        };
        let probes = Probes {
            losses: vec![(Hook::Exec, PREEMPTED)],
            refusals: vec![
                refusal(Hook::Destroy, "raw_tp", "tp_btf"),
                refusal(Hook::Exec, "tp_btf", PERF_TRACEPOINT),
                refusal(Hook::State, "raw_tp", "tp_btf"),
            ],
            ..Probes::default()
        };
        let expected = [
            "destroy, state by raw_tp; lost: nothing; this kernel refuses tp_btf: \
             unknown type of destroy"
                .to_owned(),
            format!(
                "exec by tp_btf; lost: {PREEMPTED}; this kernel refuses perf_tp: \
                 unknown type of exec"
            ),
        ];
        assert_eq!(probes.refusals(), expected);
        assert_eq!(Probes::default().refusals(), Vec::<String>::new());
    }
}
