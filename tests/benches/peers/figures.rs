//! A figure: one quantity of one side under one workload, as often as it was measured.

use serde::Serialize;

/// Which quantity; its unit stands in its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Quantity {
    #[serde(rename = "requests_per_s")]
    Requests,
    /// BPF run time of the side's programs (kernel.bpf_stats_enabled).
    #[serde(rename = "kernel_us_per_connection")]
    KernelPerConnection,
    #[serde(rename = "kernel_ns_per_event")]
    KernelPerEvent,
    /// How often a program of the side runs.
    #[serde(rename = "program_runs_per_connection")]
    RunsPerConnection,
    /// Of a connection, how many were walked: beyond a rate it takes samples.
    #[serde(rename = "stacks_per_connection")]
    StacksPerConnection,
    /// Of requests on connections that stay open.
    #[serde(rename = "program_runs_per_million_requests")]
    RunsPerMillion,
    /// User and system time of the side's process.
    #[serde(rename = "own_cpu_us_per_connection")]
    OwnCpuPerConnection,
    #[serde(rename = "lost_events")]
    Lost,
    #[serde(rename = "list_ms")]
    List,
    #[serde(rename = "kernel_bytes_per_socket")]
    KernelBytes,
    #[serde(rename = "process_bytes_per_socket")]
    ProcessBytes,
    #[serde(rename = "own_cpu_ms_per_s")]
    OwnCpuPerSecond,
    #[serde(rename = "attached_ms")]
    Attached,
    /// From the connection that crosses a threshold to the line that says so.
    #[serde(rename = "told_ms")]
    Told,
    /// How often a thread of the side was put on a CPU that is set apart, or woken there.
    #[serde(rename = "strays")]
    Strays,
    #[serde(rename = "reconcile_cpu_ms")]
    ReconcileCpu,
}

impl Quantity {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests a second",
            Self::KernelPerConnection => "kernel us a connection",
            Self::KernelPerEvent => "kernel ns an event",
            Self::RunsPerConnection => "program runs a connection",
            Self::StacksPerConnection => "stacks a connection",
            Self::RunsPerMillion => "program runs a million requests",
            Self::OwnCpuPerConnection => "own CPU us a connection",
            Self::Lost => "lost events",
            Self::List => "list with owners, ms",
            Self::KernelBytes => "kernel bytes a socket",
            Self::ProcessBytes => "process bytes a socket",
            Self::OwnCpuPerSecond => "own CPU, ms a second",
            Self::Attached => "start to attached, ms",
            Self::Told => "crossing to word, ms",
            Self::Strays => "times on a CPU set apart",
            Self::ReconcileCpu => "a reconcile's CPU, ms",
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) workload: &'static str,
    pub(crate) side: String,
    pub(crate) quantity: Quantity,
    pub(crate) values: Vec<f64>,
}

impl Figure {
    /// Between which the middle half lies.
    pub(crate) fn quartiles(&self) -> (f64, f64) {
        let sorted = self.sorted();
        let at = |part: usize| sorted.get(sorted.len() * part / 4).copied();
        (at(1).unwrap_or(f64::NAN), at(3).unwrap_or(f64::NAN))
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            length if length % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    pub(crate) fn spread(&self) -> (f64, f64) {
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self
            .values
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        (least, most)
    }
}

/// All that was measured, in the order it was first measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(Vec<Figure>);

impl Figures {
    pub(crate) fn add(
        &mut self,
        workload: &'static str,
        side: &str,
        quantity: Quantity,
        value: f64,
    ) {
        let found = self.0.iter_mut().find(|figure| {
            figure.workload == workload && figure.side == side && figure.quantity == quantity
        });
        match found {
            Some(figure) => figure.values.push(value),
            None => self.0.push(Figure {
                workload,
                side: side.to_owned(),
                quantity,
                values: vec![value],
            }),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Figure> {
        self.0.iter()
    }

    pub(crate) fn has(&self, workload: &str) -> bool {
        self.0.iter().any(|figure| figure.workload == workload)
    }

    pub(crate) fn median(&self, workload: &str, side: &str, quantity: Quantity) -> Option<f64> {
        self.find(workload, side, quantity).map(Figure::median)
    }

    pub(crate) fn most(&self, workload: &str, side: &str, quantity: Quantity) -> Option<f64> {
        let (_, most) = self.find(workload, side, quantity)?.spread();
        Some(most)
    }

    /// The ratios of what two sides did in the same turn.
    pub(crate) fn in_turn(
        &self,
        workload: &'static str,
        a: &str,
        b: &str,
        quantity: Quantity,
    ) -> Option<Figure> {
        let (of, to) = (
            self.find(workload, a, quantity)?,
            self.find(workload, b, quantity)?,
        );
        let ratios = of.values.iter().zip(&to.values).map(|(a, b)| a / b);
        Some(Figure {
            workload,
            side: format!("{a} / {b}"),
            quantity,
            values: ratios.collect(),
        })
    }

    fn find(&self, workload: &str, side: &str, quantity: Quantity) -> Option<&Figure> {
        self.0.iter().find(|figure| {
            figure.workload == workload && figure.side == side && figure.quantity == quantity
        })
    }
}
