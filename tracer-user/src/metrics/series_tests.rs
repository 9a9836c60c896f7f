//! Tests of the series: labels stay bounded, and counters never fall or lose what ended.

use std::collections::{BTreeMap, BTreeSet};

use super::{Exposition, Family, Series, prometheus};
use crate::accounting::Verdict;
use crate::report::model::{OpenerReport, Report, SCHEMA, StackReport, Totals, Trend};
use crate::stacks::{Frame, FrameKind};

const SECOND_NS: u64 = 1_000_000_000;

fn report(openers: Vec<OpenerReport>) -> Report {
    Report {
        schema: SCHEMA.to_owned(),
        version: "1".to_owned(),
        kernel: "6.18".to_owned(),
        host: "host".to_owned(),
        boot_id: String::new(),
        netns: None,
        started_at: String::new(),
        generated_at: String::new(),
        ports: vec![6379],
        probes: BTreeMap::new(),
        totals: Totals::default(),
        openers,
        units: Vec::new(),
        sites: Vec::new(),
        servers: Vec::new(),
        timeline: None,
    }
}

fn opener(pid: u32, unit: &str, outstanding: u64, opened: u64) -> OpenerReport {
    let frame = Frame {
        function: Some(format!("handle_{unit}")),
        file: None,
        line: Some(pid),
        module: None,
        kind: FrameKind::Native,
        inlined: false,
    };
    OpenerReport {
        pid: Some(pid),
        inner_pid: None,
        start_time: Some(pid.to_string()),
        name: Some(format!("worker-{pid}")),
        cmdline: Vec::new(),
        unit: Some(unit.to_owned()),
        container: None,
        pod: None,
        user: None,
        netns: None,
        ended: false,
        outstanding,
        peak_outstanding: None,
        opened: Some(opened),
        closed: Some(opened - outstanding),
        states: BTreeMap::new(),
        oldest_age_s: Some(f64::from(pid)),
        trend: Trend {
            verdict: Some(Verdict::Leaking),
            ..Trend::default()
        },
        stacks: vec![StackReport {
            outstanding,
            oldest_age_s: None,
            youngest_age_s: None,
            site: None,
            verdict: None,
            frames: vec![frame],
            note: None,
        }],
        sockets: Vec::new(),
    }
}

fn sum(families: &[Family], name: &str) -> f64 {
    let family = families.iter().find(|family| family.name == name);
    let points = family.into_iter().flat_map(|family| &family.points);
    points.map(|point| point.value).sum()
}

/// A process, a unit and a stack of its own each, a third of a second apart.
#[test]
fn ten_thousand_processes_in_an_hour_make_a_bounded_number_of_series() {
    let mut series = Series::new(20);
    let mut seen = BTreeSet::new();
    let mut highest = 0;
    let mut outstanding = 0;
    for first in (0..10_000_u32).step_by(40) {
        // Scraped every 15 seconds: forty new ones each time, and the ones before are still there.
        let now_ns = u64::from(first) * 3600 * SECOND_NS / 10_000;
        let pids = first.saturating_sub(80)..first + 40;
        let openers: Vec<_> = pids
            .map(|pid| {
                opener(
                    pid,
                    &format!("run-{pid}.service"),
                    1 + u64::from(pid % 7),
                    10,
                )
            })
            .collect();
        outstanding = openers.iter().map(|opener| opener.outstanding).sum();
        let report = report(openers);
        series.take(&report, now_ns);
        let families = series.families(&report, now_ns);
        assert_eq!(
            sum(&families, "connleak_outstanding_connections"),
            outstanding as f64,
            "whatever has no series of its own is summed"
        );
        let points = families.iter().map(|family| family.points.len());
        highest = highest.max(points.sum::<usize>());
        for family in &families {
            let labels = family.points.iter();
            seen.extend(labels.map(|point| (family.name, point.labels.clone())));
        }
        if first == 9_960 {
            let opened = sum(&families, "connleak_opened_connections");
            assert!(opened > 0.0);
        }
    }
    assert!(outstanding > 0);
    assert!(highest <= 700, "{highest} series in one scrape");
    assert!(seen.len() <= 5_000, "{} series in an hour", seen.len());
}

#[test]
fn a_counter_keeps_what_ended_processes_did() {
    let mut series = Series::new(0);
    let mut opened = 0.0;
    for round in 0..100 {
        let first = opener(round, "a.service", 0, 30);
        let again = OpenerReport {
            opened: Some(35),
            closed: Some(35),
            ..first.clone()
        };
        for openers in [vec![first], vec![again], Vec::new()] {
            let report = report(openers);
            series.take(&report, u64::from(round) * SECOND_NS);
            let families = series.families(&report, u64::from(round) * SECOND_NS);
            let now = sum(&families, "connleak_opened_connections");
            assert!(now >= opened, "a counter fell from {opened} to {now}");
            opened = now;
        }
    }
    assert_eq!(opened, 3500.0);
}

#[test]
fn processes_have_series_only_where_they_are_asked_for() {
    let openers = (1..=5).map(|pid| opener(pid, "a.service", u64::from(pid), 10));
    let report = report(openers.collect());
    let page = prometheus(&report, Exposition::Text, 0);
    assert!(!page.contains("pid="), "{page}");
    let page = prometheus(&report, Exposition::Text, 2);
    assert_eq!(page.matches("pid=").count(), 2, "{page}");
    assert!(page.contains("pid=\"5\"") && page.contains("pid=\"4\""));
    assert!(
        page.contains(
            "connleak_outstanding_connections{unit=\"a.service\",verdict=\"leaking\"} 15\n"
        )
    );
}
