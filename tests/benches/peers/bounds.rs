//! A bound: what a figure or a ratio of medians may be, so that the bench can fail.

use serde::Serialize;

use crate::figures::{Figures, Quantity};
use crate::side::{
    CONNLEAK, DAEMON, DAEMON_AFFINITY, DAEMON_CPUSET, EMPTY, NETSTAT, NOBODY, SS, TCPLIFE,
    USTACK_COUNT,
};

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Bound {
    pub(crate) says: String,
    /// Not a number where a workload ran and did not measure it: then it does not hold.
    pub(crate) measured: f64,
    pub(crate) at_least: Option<f64>,
    pub(crate) at_most: Option<f64>,
}

impl Bound {
    pub(crate) fn holds(&self) -> bool {
        self.at_least.is_none_or(|bound| self.measured >= bound)
            && self.at_most.is_none_or(|bound| self.measured <= bound)
    }
}

/// What is held against a limit, of the sides named.
enum Of {
    /// The medians, the first divided by the second.
    Ratio(&'static str, &'static str),
    Median(&'static str),
    /// The greatest: for what must never be.
    Most(&'static str),
}

enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

use Limit::{AtLeast, AtMost};
use Of::{Median, Most, Ratio};
use Quantity::{
    Attached, KernelBytes, KernelPerConnection, KernelPerEvent, List, Lost, OwnCpuPerConnection,
    OwnCpuPerSecond, ProcessBytes, Requests, RunsPerMillion, Strays, Told,
};

const BOUNDS: [(&str, Quantity, Of, Limit); 18] = [
    (
        "churn",
        KernelPerConnection,
        Ratio(CONNLEAK, TCPLIFE),
        AtMost(1.0 / 6.0),
    ),
    (
        "churn",
        KernelPerConnection,
        Ratio(CONNLEAK, USTACK_COUNT),
        AtMost(2.5),
    ),
    (
        "churn",
        OwnCpuPerConnection,
        Ratio(CONNLEAK, TCPLIFE),
        AtMost(0.2),
    ),
    ("churn", Requests, Ratio(CONNLEAK, NOBODY), AtLeast(0.97)),
    ("churn", Lost, Most(CONNLEAK), AtMost(0.0)),
    ("traffic", Requests, Ratio(CONNLEAK, NOBODY), AtLeast(0.995)),
    // Those are of the machine's other processes.
    ("traffic", RunsPerMillion, Most(CONNLEAK), AtMost(50.0)),
    (
        "other ports",
        KernelPerEvent,
        Ratio(CONNLEAK, EMPTY),
        AtMost(1.5),
    ),
    ("standing", List, Ratio(SS, CONNLEAK), AtLeast(20.0)),
    ("standing", List, Ratio(NETSTAT, CONNLEAK), AtLeast(20.0)),
    ("standing", KernelBytes, Most(CONNLEAK), AtMost(400.0)),
    ("standing", ProcessBytes, Most(CONNLEAK), AtMost(400.0)),
    ("standing", OwnCpuPerSecond, Most(CONNLEAK), AtMost(1.0)),
    ("promptness", Told, Most(DAEMON), AtMost(100.0)),
    ("start", Attached, Median(CONNLEAK), AtMost(300.0)),
    // If it never strays anywhere, nobody was looking.
    ("pinned", Strays, Median(DAEMON), AtLeast(1.0)),
    ("pinned", Strays, Most(DAEMON_AFFINITY), AtMost(0.0)),
    ("pinned", Strays, Most(DAEMON_CPUSET), AtMost(0.0)),
];

/// The bounds of the workloads that were measured.
pub(crate) fn check(figures: &Figures) -> Vec<Bound> {
    BOUNDS
        .iter()
        .filter(|(workload, ..)| figures.has(workload))
        .map(|(workload, quantity, of, limit)| {
            let median = |side: &str| figures.median(workload, side, *quantity);
            let (of_whom, measured) = match *of {
                Ratio(a, b) => (
                    format!("{a} / {b}"),
                    median(a).zip(median(b)).map(|(a, b)| a / b),
                ),
                Median(side) => (side.to_owned(), median(side)),
                Most(side) => (
                    format!("{side}, at most"),
                    figures.most(workload, side, *quantity),
                ),
            };
            let (at_least, at_most) = match limit {
                AtLeast(bound) => (Some(*bound), None),
                AtMost(bound) => (None, Some(*bound)),
            };
            Bound {
                says: format!("{workload}: {}, {of_whom}", quantity.name()),
                measured: measured.unwrap_or(f64::NAN),
                at_least,
                at_most,
            }
        })
        .collect()
}
