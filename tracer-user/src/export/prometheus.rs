//! Prometheus: a report as metrics, for the text-file collector and for a scrape.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::label;
use crate::accounting::Verdict;
use crate::report::{
    Report, clean,
    model::{Lost, OpenerReport},
};

/// Units beyond this many, the smallest, are one series: a scrape has a bound.
const UNITS_MAX: usize = 200;
const OTHER: &str = "[other]";

/// Which of the two dialects is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// Version 0.0.4: files, and every scraper.
    Text,
    /// What a scraper asks for as `application/openmetrics-text`.
    OpenMetrics,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    outstanding: u64,
    openers: u64,
    oldest_age_s: Option<f64>,
}

/// Series by unit and verdict, and by process for the `top_pids` openers with the most.
pub fn prometheus(report: &Report, exposition: Exposition, top_pids: usize) -> String {
    let mut page = Page {
        text: String::new(),
        exposition,
    };
    page.family(
        "connleak_build_info",
        "gauge",
        "Always 1; the version as its label.",
    );
    page.sample("connleak_build_info", &[("version", &report.version)], 1);
    page.totals(report);
    page.lost(report.totals.lost);
    page.openers(&report.openers);
    page.top(&report.openers, top_pids);
    if exposition == Exposition::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

struct Page {
    text: String,
    exposition: Exposition,
}

impl Page {
    /// OpenMetrics names a counter's family without the `_total` of its samples.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let name = match self.exposition {
            Exposition::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
            Exposition::Text => name,
        };
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}");
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.text.push_str(name);
        if !labels.is_empty() {
            let labels: Vec<String> = labels
                .iter()
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
                .collect();
            let _ = write!(self.text, "{{{}}}", labels.join(","));
        }
        let _ = writeln!(self.text, " {value}");
    }

    fn totals(&mut self, report: &Report) {
        let totals = &report.totals;
        for (name, help, value) in [
            (
                "connleak_established_both_ends",
                "Sockets in ESTABLISHED with a watched port at either end.",
                totals.established_both_ends,
            ),
            (
                "connleak_established_client_ends",
                "Sockets in ESTABLISHED with a watched remote port.",
                totals.established_client_ends,
            ),
            (
                "connleak_close_wait_connections",
                "Sockets whose peer has closed and whose holder has not.",
                totals.close_wait,
            ),
            (
                "connleak_unattributed_connections",
                "Client ends of which neither an opener nor a holder is known.",
                totals.unattributed,
            ),
            (
                "connleak_drift_connections",
                "Sockets that the latest comparison with the kernel had to repair.",
                totals.drift,
            ),
        ] {
            self.family(name, "gauge", help);
            self.sample(name, &[], value);
        }
    }

    fn lost(&mut self, lost: Lost) {
        const NAME: &str = "connleak_lost_total";
        self.family(NAME, "counter", "What the kernel side could not deliver.");
        for (cause, count) in [
            ("ring_full", lost.ring_full),
            ("map_full", lost.map_full),
            ("openers_full", lost.openers_full),
            ("stack_full", lost.stack_full),
            ("stack_spared", lost.stack_spared),
            ("stack_fault", lost.stack_fault),
        ] {
            self.sample(NAME, &[("cause", cause)], count);
        }
    }

    fn openers(&mut self, openers: &[OpenerReport]) {
        let sums = sums(openers);
        const OUTSTANDING: &str = "connleak_outstanding_connections";
        self.family(OUTSTANDING, "gauge", "Opened and not yet destroyed.");
        for ((unit, verdict), sum) in &sums {
            let labels = [("unit", unit.as_str()), ("verdict", verdict)];
            self.sample(OUTSTANDING, &labels, sum.outstanding);
        }
        const OPENERS: &str = "connleak_openers";
        self.family(OPENERS, "gauge", "Processes with something outstanding.");
        for ((unit, verdict), sum) in &sums {
            let labels = [("unit", unit.as_str()), ("verdict", verdict)];
            self.sample(OPENERS, &labels, sum.openers);
        }
        const OLDEST: &str = "connleak_oldest_connection_age_seconds";
        self.family(OLDEST, "gauge", "Age of the oldest outstanding connection.");
        for ((unit, verdict), sum) in &sums {
            if let Some(age_s) = sum.oldest_age_s {
                let labels = [("unit", unit.as_str()), ("verdict", verdict)];
                self.sample(OLDEST, &labels, age_s);
            }
        }
    }

    fn top(&mut self, openers: &[OpenerReport], top_pids: usize) {
        if top_pids == 0 {
            return;
        }
        const NAME: &str = "connleak_process_outstanding_connections";
        self.family(NAME, "gauge", "Of the processes with the most.");
        // The most outstanding come first in a report.
        for opener in openers
            .iter()
            .filter(|opener| opener.outstanding > 0)
            .take(top_pids)
        {
            let pid = opener.pid.map(|pid| pid.to_string()).unwrap_or_default();
            let labels = [
                ("pid", pid.as_str()),
                ("name", &label::name(opener)),
                ("unit", &label::unit(opener)),
            ];
            self.sample(NAME, &labels, opener.outstanding);
        }
    }
}

/// By (unit, verdict); the units with the least are summed under [`OTHER`].
fn sums(openers: &[OpenerReport]) -> BTreeMap<(String, String), Sum> {
    let mut of_unit: BTreeMap<String, u64> = BTreeMap::new();
    for opener in openers {
        *of_unit.entry(label::unit(opener)).or_default() += opener.outstanding;
    }
    let mut largest: Vec<(String, u64)> = of_unit.into_iter().collect();
    largest.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    largest.truncate(UNITS_MAX);
    let named: BTreeMap<String, u64> = largest.into_iter().collect();

    let mut sums: BTreeMap<(String, String), Sum> = BTreeMap::new();
    for opener in openers.iter().filter(|opener| opener.outstanding > 0) {
        let mut unit = label::unit(opener);
        if !named.contains_key(&unit) {
            OTHER.clone_into(&mut unit);
        }
        let verdict = opener.trend.verdict.map_or("", Verdict::name).to_owned();
        let sum = sums.entry((unit, verdict)).or_default();
        sum.outstanding += opener.outstanding;
        sum.openers += 1;
        let ages = [sum.oldest_age_s, opener.oldest_age_s]
            .into_iter()
            .flatten();
        sum.oldest_age_s = ages.reduce(f64::max);
    }
    sums
}

fn escaped(value: &str) -> String {
    // Cleaning has turned control characters into backslashes of their own.
    clean(value).replace('\\', "\\\\").replace('"', "\\\"")
}
