//! A metric family is one name and its series, as Prometheus and OTLP both tell it.

use crate::report::clean;

/// Names follow Prometheus: base units, the unit last.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Of a counter without `_total`, which only Prometheus' exposition has.
    pub name: &'static str,
    pub kind: Kind,
    /// The name's own ending.
    pub unit: Option<&'static str>,
    pub help: &'static str,
    pub points: Vec<Point>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    /// Only rises while the daemon runs.
    Counter,
}

/// One series now.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// A label without a value is left out, as Prometheus has it.
    pub labels: Vec<(&'static str, String)>,
    pub value: f64,
}

impl Family {
    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Gauge,
            unit: unit_of(name),
            help,
            points: Vec::new(),
        }
    }

    pub fn counter(name: &'static str, help: &'static str) -> Self {
        Self {
            kind: Kind::Counter,
            ..Self::gauge(name, help)
        }
    }

    /// A series of it. What is not a number is not known: it has no series.
    pub fn point(&mut self, labels: &[(&'static str, &str)], value: f64) {
        if !value.is_finite() {
            return;
        }
        let labels = labels.iter().filter(|(_, text)| !text.is_empty());
        self.points.push(Point {
            labels: labels
                // A process chooses its own name.
                .map(|&(name, text)| (name, clean(text)))
                .collect(),
            value,
        });
    }

    /// The family with this one series.
    #[must_use]
    pub fn only(mut self, value: f64) -> Self {
        self.point(&[], value);
        self
    }
}

fn unit_of(name: &str) -> Option<&'static str> {
    let units = ["seconds", "bytes", "connections"];
    units
        .into_iter()
        .find(|unit| name.rsplit('_').next() == Some(unit))
}
