//! A bound: what a ratio of medians may be, so that the bench can fail.

use serde::Serialize;

use crate::figures::{Figures, Quantity};
use crate::side::{
    CONNLEAK, DAEMON, DAEMON_AFFINITY, DAEMON_CPUSET, EMPTY, NETSTAT, NOBODY, SS, TCPLIFE,
    USTACK_COUNT,
};

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Bound {
    pub(crate) says: String,
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

enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

use Limit::{AtLeast, AtMost};

/// Workload, quantity, the sides whose medians are divided, and the limit.
const RATIOS: [(&str, Quantity, &str, &str, Limit); 8] = [
    (
        "churn",
        Quantity::KernelPerConnection,
        CONNLEAK,
        TCPLIFE,
        AtMost(1.0 / 6.0),
    ),
    (
        "churn",
        Quantity::KernelPerConnection,
        CONNLEAK,
        USTACK_COUNT,
        AtMost(2.5),
    ),
    (
        "churn",
        Quantity::OwnCpuPerConnection,
        CONNLEAK,
        TCPLIFE,
        AtMost(0.2),
    ),
    ("churn", Quantity::Requests, CONNLEAK, NOBODY, AtLeast(0.97)),
    (
        "traffic",
        Quantity::Requests,
        CONNLEAK,
        NOBODY,
        AtLeast(0.995),
    ),
    (
        "other ports",
        Quantity::KernelPerEvent,
        CONNLEAK,
        EMPTY,
        AtMost(1.5),
    ),
    ("standing", Quantity::List, SS, CONNLEAK, AtLeast(20.0)),
    ("standing", Quantity::List, NETSTAT, CONNLEAK, AtLeast(20.0)),
];

/// Workload, side and quantity that stand for themselves, and the most they may be.
const FIGURES: [(&str, &str, Quantity, f64); 9] = [
    ("churn", CONNLEAK, Quantity::Lost, 0.0),
    // Those of the other processes of the machine.
    ("traffic", CONNLEAK, Quantity::RunsPerMillion, 50.0),
    ("standing", CONNLEAK, Quantity::KernelBytes, 400.0),
    ("standing", CONNLEAK, Quantity::ProcessBytes, 400.0),
    ("standing", CONNLEAK, Quantity::RestCpu, 1.0),
    ("promptness", DAEMON, Quantity::Told, 100.0),
    ("start", CONNLEAK, Quantity::Attached, 300.0),
    ("pinned", DAEMON_AFFINITY, Quantity::Strays, 0.0),
    ("pinned", DAEMON_CPUSET, Quantity::Strays, 0.0),
];

/// The bounds on what was measured.
pub(crate) fn check(figures: &Figures) -> Vec<Bound> {
    let ratios = RATIOS
        .iter()
        .filter_map(|(workload, quantity, a, b, limit)| {
            let of = |side| figures.median(workload, side, *quantity);
            let (at_least, at_most) = match limit {
                AtLeast(bound) => (Some(*bound), None),
                AtMost(bound) => (None, Some(*bound)),
            };
            Some(Bound {
                says: format!("{workload}: {}, {a} / {b}", quantity.name()),
                measured: of(a)? / of(b)?,
                at_least,
                at_most,
            })
        });
    let alone = FIGURES
        .iter()
        .filter_map(|(workload, side, quantity, most)| {
            Some(Bound {
                says: format!("{workload}: {}, {side}", quantity.name()),
                measured: figures.median(workload, side, *quantity)?,
                at_least: None,
                at_most: Some(*most),
            })
        });
    ratios.chain(alone).collect()
}
