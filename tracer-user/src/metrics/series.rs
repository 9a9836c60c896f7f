//! The series of a report: by unit and verdict, by stack, and by process where it is asked for.
//!
//! Every label that a machine can have many of goes through [`Slots`]; what has none is summed
//! under [`OTHERS`].

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::digest::verdict_name;
use super::metric::Family;
use super::slots::Slots;
use super::stack_id::stack_id;
use crate::process::Pod;
use crate::report::Report;
use crate::report::model::{OpenerReport, StackReport};

/// Units and containers with series of their own.
const PLACES_MAX: usize = 100;
/// Stacks with a series.
const STACKS_MAX: usize = 50;
const HOLD: Duration = Duration::from_secs(600);
/// The unit of all that have no slot.
const OTHERS: &str = "[others]";
/// The verdict of an opener that has none yet.
const NO_VERDICT: &str = "none";

/// Where an opener runs: what one would restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Place {
    unit: String,
    container: String,
    namespace: String,
    pod: String,
}

impl Place {
    fn labels(&self) -> [(&'static str, &str); 4] {
        [
            ("unit", &self.unit),
            ("container", &self.container),
            ("namespace", &self.namespace),
            ("pod", &self.pod),
        ]
    }
}

type StackKey = (String, Place);
/// PID and start: a PID is used again.
type ProcessKey = (u32, String);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flow {
    opened: u64,
    closed: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    outstanding: u64,
    openers: u64,
    oldest_age_s: Option<f64>,
}

/// What one report leaves for the next: who has a series, and what was counted under it.
#[derive(Debug)]
pub struct Series {
    places: Slots<Place>,
    stacks: Slots<StackKey>,
    processes: Slots<ProcessKey>,
    top_pids: usize,
    /// As of the latest report that had the process: its count ends with it, the sum does not.
    known: HashMap<ProcessKey, Flow>,
    flows: BTreeMap<Place, Flow>,
}

impl Series {
    pub fn new(top_pids: usize) -> Self {
        Self {
            places: Slots::new(PLACES_MAX, HOLD),
            stacks: Slots::new(STACKS_MAX, HOLD),
            processes: Slots::new(top_pids, HOLD),
            top_pids,
            known: HashMap::new(),
            flows: BTreeMap::new(),
        }
    }

    /// Adds up what was opened and closed since the report before. Every process must be in one
    /// report at least before it is forgotten.
    pub fn take(&mut self, report: &Report, now_ns: u64) {
        let mut weights: BTreeMap<Place, (u64, u64)> = BTreeMap::new();
        for opener in &report.openers {
            let weight = weights.entry(place(opener)).or_default();
            weight.0 += opener.outstanding;
            weight.1 += opener.opened.unwrap_or(0);
        }
        self.places.give(&largest(weights), now_ns);
        let mut known = HashMap::with_capacity(self.known.len());
        for opener in &report.openers {
            let (Some(key), Some(opened), Some(closed)) =
                (process_key(opener), opener.opened, opener.closed)
            else {
                continue;
            };
            let before = self.known.get(&key).copied().unwrap_or_default();
            let sum = self.flows.entry(self.placed(opener)).or_default();
            sum.opened += opened.saturating_sub(before.opened);
            sum.closed += closed.saturating_sub(before.closed);
            known.insert(key, Flow { opened, closed });
        }
        self.known = known;
        let others = others();
        self.flows
            .retain(|place, _| self.places.has(place) || *place == others);
    }

    /// The families of a report that was taken.
    pub fn families(&mut self, report: &Report, now_ns: u64) -> Vec<Family> {
        let mut families = totals(report);
        families.extend(self.of_places(report));
        families.push(self.of_stacks(report, now_ns));
        if self.top_pids > 0 {
            families.push(self.of_processes(report, now_ns));
        }
        families
    }

    fn placed(&self, opener: &OpenerReport) -> Place {
        let place = place(opener);
        if self.places.has(&place) {
            place
        } else {
            others()
        }
    }

    fn of_places(&self, report: &Report) -> Vec<Family> {
        let mut standings: BTreeMap<(Place, String), Standing> = BTreeMap::new();
        for opener in report.openers.iter().filter(|it| it.outstanding > 0) {
            let key = (self.placed(opener), verdict(opener));
            let standing = standings.entry(key).or_default();
            standing.outstanding += opener.outstanding;
            standing.openers += 1;
            let ages = [standing.oldest_age_s, opener.oldest_age_s];
            standing.oldest_age_s = ages.into_iter().flatten().reduce(f64::max);
        }
        let mut outstanding = Family::gauge(
            "connleak_outstanding_connections",
            "Connections to Redis that were opened here and are still open, by who opened them.",
        );
        let mut openers = Family::gauge(
            "connleak_openers",
            "Processes that have connections to Redis outstanding.",
        );
        let mut oldest = Family::gauge(
            "connleak_oldest_connection_age_seconds",
            "Age of the oldest connection that is outstanding.",
        );
        for ((place, verdict), standing) in &standings {
            let [unit, container, namespace, pod] = place.labels();
            let labels = [unit, container, namespace, pod, ("verdict", verdict)];
            outstanding.point(&labels, standing.outstanding as f64);
            openers.point(&labels, standing.openers as f64);
            oldest.point(&labels, standing.oldest_age_s.unwrap_or(f64::NAN));
        }
        let mut opened = Family::counter(
            "connleak_opened_connections",
            "Connections to Redis that were opened since tracing started.",
        );
        let mut closed = Family::counter(
            "connleak_closed_connections",
            "Of the connections opened since tracing started, the ones that are gone.",
        );
        for (place, flow) in &self.flows {
            opened.point(&place.labels(), flow.opened as f64);
            closed.point(&place.labels(), flow.closed as f64);
        }
        vec![outstanding, openers, oldest, opened, closed]
    }

    fn of_stacks(&mut self, report: &Report, now_ns: u64) -> Family {
        let mut family = Family::gauge(
            "connleak_stack_outstanding_connections",
            "Connections outstanding by connect stack; /stacks/ID of the daemon tells its frames.",
        );
        let mut sums: BTreeMap<StackKey, (u64, &StackReport)> = BTreeMap::new();
        for opener in &report.openers {
            let with_frames = opener.stacks.iter().filter(|it| !it.frames.is_empty());
            for stack in with_frames {
                let key = (stack_id(&stack.frames), self.placed(opener));
                sums.entry(key).or_insert((0, stack)).0 += stack.outstanding;
            }
        }
        let weights = sums.iter().map(|(key, (sum, _))| (key.clone(), *sum));
        self.stacks.give(&largest(weights.collect()), now_ns);
        for ((id, place), (sum, stack)) in &sums {
            if !self.stacks.has(&(id.clone(), place.clone())) {
                continue;
            }
            let site = stack.site.as_ref();
            let site = site.and_then(|site| site.function.as_deref());
            let stack = [("stack", id.as_str()), ("site", site.unwrap_or(""))];
            let labels = [&stack[..], &place.labels()].concat();
            family.point(&labels, *sum as f64);
        }
        family
    }

    fn of_processes(&mut self, report: &Report, now_ns: u64) -> Family {
        let mut family = Family::gauge(
            "connleak_process_outstanding_connections",
            "Connections outstanding of the processes that have the most.",
        );
        let outstanding: Vec<(&OpenerReport, ProcessKey)> = report
            .openers
            .iter()
            .filter(|opener| opener.outstanding > 0)
            .filter_map(|opener| Some((opener, process_key(opener)?)))
            .collect();
        let weights = outstanding
            .iter()
            .map(|(opener, key)| (key.clone(), opener.outstanding));
        self.processes.give(&largest(weights.collect()), now_ns);
        for (opener, key) in &outstanding {
            if !self.processes.has(key) {
                continue;
            }
            let place = self.placed(opener);
            let pid = key.0.to_string();
            let name = opener.name.as_deref().unwrap_or("");
            let process = [("pid", pid.as_str()), ("name", name)];
            let labels = [&process[..], &place.labels()].concat();
            family.point(&labels, opener.outstanding as f64);
        }
        family
    }
}

fn totals(report: &Report) -> Vec<Family> {
    let totals = &report.totals;
    let mut build = Family::gauge("connleak_build_info", "Always 1; what runs, as labels.");
    build.point(
        &[("version", &report.version), ("kernel", &report.kernel)],
        1.0,
    );
    let mut established = Family::gauge(
        "connleak_established_connections",
        "Sockets in ESTABLISHED by which end is watched; their sum is what the policy counts.",
    );
    let client_ends = totals.established_client_ends;
    let server_ends = totals.established_both_ends.saturating_sub(client_ends);
    established.point(&[("end", "client")], client_ends as f64);
    established.point(&[("end", "server")], server_ends as f64);
    let mut lost = Family::counter(
        "connleak_lost_events",
        "What the kernel side could not deliver, by cause.",
    );
    for (cause, count) in [
        ("ring_full", totals.lost.ring_full),
        ("map_full", totals.lost.map_full),
        ("openers_full", totals.lost.openers_full),
        ("stack_full", totals.lost.stack_full),
        ("stack_spared", totals.lost.stack_spared),
        ("stack_fault", totals.lost.stack_fault),
    ] {
        lost.point(&[("cause", cause)], count as f64);
    }
    let gauge = |name, help, value: u64| Family::gauge(name, help).only(value as f64);
    vec![
        build,
        established,
        gauge(
            "connleak_close_wait_connections",
            "Connections that Redis has closed and their holder has not.",
            totals.close_wait,
        ),
        gauge(
            "connleak_unattributed_connections",
            "Connections of which neither an opener nor a holder is known.",
            totals.unattributed,
        ),
        gauge(
            "connleak_drift_connections",
            "Connections that the latest comparison with the kernel's own lists had to repair.",
            totals.drift,
        ),
        lost,
    ]
}

fn place(opener: &OpenerReport) -> Place {
    let pod = opener.pod.as_ref();
    let of_pod = |field: fn(&Pod) -> &Option<String>| pod.and_then(|pod| field(pod).clone());
    Place {
        unit: opener.unit.clone().unwrap_or_default(),
        container: opener.container.clone().unwrap_or_default(),
        namespace: of_pod(|pod| &pod.namespace).unwrap_or_default(),
        pod: of_pod(|pod| &pod.name)
            .or_else(|| pod.map(|pod| pod.uid.clone()))
            .unwrap_or_default(),
    }
}

fn others() -> Place {
    Place {
        unit: OTHERS.to_owned(),
        ..Place::default()
    }
}

fn process_key(opener: &OpenerReport) -> Option<ProcessKey> {
    Some((opener.pid?, opener.start_time.clone()?))
}

fn verdict(opener: &OpenerReport) -> String {
    verdict_name(opener).unwrap_or_else(|| NO_VERDICT.to_owned())
}

/// The keys, those of the largest weight first.
fn largest<K: Ord, W: Ord>(weights: BTreeMap<K, W>) -> Vec<K> {
    let mut weights: Vec<(K, W)> = weights.into_iter().collect();
    // Stable: keys of one weight stay in their order.
    weights.sort_by(|a, b| b.1.cmp(&a.1));
    weights.into_iter().map(|(key, _)| key).collect()
}
