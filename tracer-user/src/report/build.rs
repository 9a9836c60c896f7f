//! Building a report from the ledger, the processes and the kernel side's own numbers.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use smallvec::SmallVec;

use super::listing::Listing;
use super::model::{
    Events, HolderReport, Lost, NextLevel, OpenerName, OpenerReport, Report, SCHEMA, ServerReport,
    SiteReport, SiteTotals, SocketReport, StackReport, Totals, Trend, UnitReport,
};
use crate::{
    accounting::{self, Account, Group, Groups, Ledger, Owner},
    clock::Clock,
    decode::socket::{NoStack, Opener, TcpState},
    host::Host,
    policy::level::{Level, Thresholds},
    process::{ProcessKey, Processes},
    sockets::{Drift, Entry, SocketTable, StackRef},
    stacks::{Site, SiteRules, Stack},
};

/// Opened and closed since tracing started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub opened: u64,
    pub closed: u64,
}

/// How a port stands to its levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PortStanding {
    pub thresholds: Thresholds,
    /// As the policy counts it.
    pub count: u32,
    /// What one connection adds to the count: 2 where both of its ends are on this host.
    pub per_connection: f64,
}

/// What a report is made from.
pub struct Sources<'a> {
    pub table: &'a SocketTable,
    pub processes: &'a Processes,
    pub host: &'a Host,
    pub clock: &'a Clock,
    pub site_rules: &'a SiteRules,
    pub ports: &'a [u16],
    pub listing: Listing,
    /// `None` for a snapshot.
    pub groups: Option<&'a Groups>,
    /// The port that has levels; `None` where several are watched, or none has any.
    pub port_standing: Option<PortStanding>,
    /// connleak's own network namespace, which the totals count.
    pub netns: Option<u32>,
    pub probes: BTreeMap<String, String>,
    /// `None` for a snapshot.
    pub tallies: Option<HashMap<ProcessKey, Tally>>,
    pub lost: Lost,
    /// Since the start, and of the latest reconcile.
    pub drift: Drift,
    pub latest_drift: Drift,
    pub events: Option<Events>,
    pub started_ns: u64,
    pub now_ns: u64,
}

pub fn build(sources: &Sources<'_>) -> Report {
    let ledger = Ledger::of(sources.table, sources.processes, sources.netns);
    let mut openers = Vec::new();
    let mut servers = Vec::new();
    for (&owner, account) in &ledger.accounts {
        if !account.client_ends.is_empty() {
            openers.push(opener(sources, owner, account));
        }
        if !account.server_ends.is_empty() {
            servers.push(server(sources, owner, account));
        }
    }
    openers.extend(without_sockets(sources, &ledger));
    openers.sort_by_key(|opener| (std::cmp::Reverse(opener.outstanding), opener.pid));
    Report {
        schema: SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: sources.host.kernel.clone(),
        host: sources.host.name.clone(),
        boot_id: sources.host.boot_id.clone(),
        netns: sources.netns,
        started_at: sources.clock.rfc3339(sources.started_ns),
        generated_at: sources.clock.rfc3339(sources.now_ns),
        ports: sources.ports.to_vec(),
        probes: sources.probes.clone(),
        totals: Totals {
            established_both_ends: ledger.counts.established_both_ends,
            established_client_ends: ledger.counts.established_client_ends,
            close_wait: ledger.counts.close_wait,
            unattributed: ledger.counts.unattributed,
            drift: sources.latest_drift.total(),
            drift_causes: sources.drift,
            lost: sources.lost,
            events: sources.events,
        },
        openers,
        units: units(sources),
        sites: sites(sources),
        servers,
        timeline: None,
    }
}

fn units(sources: &Sources<'_>) -> Vec<UnitReport> {
    let groups = sources.groups.into_iter().flat_map(Groups::iter);
    let of_unit = groups.filter_map(|(group, outstanding)| {
        let Group::Unit(unit) = group else {
            return None;
        };
        Some(UnitReport {
            unit: unit.to_string(),
            outstanding: u64::from(outstanding),
            trend: trend(sources, group),
        })
    });
    let mut units: Vec<UnitReport> = of_unit.collect();
    units.sort_by(|a, b| (b.outstanding, &a.unit).cmp(&(a.outstanding, &b.unit)));
    units
}

fn sites(sources: &Sources<'_>) -> Vec<SiteTotals> {
    let groups = sources.groups.into_iter().flat_map(Groups::iter);
    let of_site = groups.filter_map(|(group, outstanding)| {
        let Group::Site(site) = group else {
            return None;
        };
        Some(SiteTotals {
            site: SiteReport::from(Site::clone(site)),
            outstanding: u64::from(outstanding),
            trend: trend(sources, group),
        })
    });
    let mut sites: Vec<SiteTotals> = of_site.collect();
    sites.sort_by(|a, b| (b.outstanding, &a.site).cmp(&(a.outstanding, &b.site)));
    sites
}

fn trend(sources: &Sources<'_>, group: &Group) -> Trend {
    let Some(groups) = sources.groups else {
        return Trend::default();
    };
    let judgement = groups.judgement(group, sources.now_ns);
    let net_per_minute = groups.net_per_minute(group, sources.now_ns);
    Trend {
        verdict: judgement.verdict,
        facts: judgement.facts.iter().map(ToString::to_string).collect(),
        rates: groups.rates(group, sources.now_ns),
        next_level: sources
            .port_standing
            .and_then(|port| port.next_level(net_per_minute?)),
    }
}

impl PortStanding {
    fn next_level(&self, net_per_minute: f64) -> Option<NextLevel> {
        let Thresholds {
            warning,
            leak,
            critical,
        } = self.thresholds;
        let levels = [
            (Level::Warning, warning),
            (Level::Leak, leak),
            (Level::Critical, critical),
        ];
        let (level, count) = levels.into_iter().find(|(_, least)| *least > self.count)?;
        let growth = net_per_minute * self.per_connection;
        let in_s = accounting::seconds_to(count, self.count, growth)?;
        Some(NextLevel { level, count, in_s })
    }
}

impl From<Site> for SiteReport {
    fn from(site: Site) -> Self {
        Self {
            function: site.function,
            file: site.file,
            line: site.line,
        }
    }
}

fn opener(sources: &Sources<'_>, owner: Owner, account: &Account<'_>) -> OpenerReport {
    let entries = &account.client_ends;
    let mut report = identity(sources, owner);
    report.outstanding = entries.len() as u64;
    report.states = states(entries);
    report.oldest_age_s = ages(sources, entries).reduce(f64::max);
    if sources.listing.is_of(report.pid) {
        report.stacks = stacks(sources, entries);
        report.sockets = sockets(sources, owner, entries);
    }
    report
}

/// Processes that opened sockets and closed them all: they churn, or leaked and recovered.
fn without_sockets(sources: &Sources<'_>, ledger: &Ledger<'_>) -> Vec<OpenerReport> {
    let Some(tallies) = &sources.tallies else {
        return Vec::new();
    };
    tallies
        .keys()
        .map(|&process| Owner::Process(process))
        .filter(|owner| {
            ledger
                .accounts
                .get(owner)
                .is_none_or(|account| account.client_ends.is_empty())
        })
        .map(|owner| identity(sources, owner))
        .collect()
}

fn identity(sources: &Sources<'_>, owner: Owner) -> OpenerReport {
    let key = match owner {
        Owner::Process(key) => Some(key),
        Owner::Unattributed => None,
    };
    let process = key.and_then(|key| sources.processes.get(key));
    let tally = key.and_then(|key| {
        let tallies = sources.tallies.as_ref()?;
        Some(tallies.get(&key).copied().unwrap_or_default())
    });
    OpenerReport {
        pid: key.map(|key| key.pid),
        inner_pid: process.and_then(|process| process.inner_pid),
        start_time: key.map(|key| sources.clock.rfc3339(key.start_time_ns)),
        name: process.map(|process| process.name.clone()),
        cmdline: process
            .map(|process| process.cmdline.clone())
            .unwrap_or_default(),
        unit: process.and_then(|process| process.unit.clone()),
        container: process.and_then(|process| process.container.clone()),
        pod: process.and_then(|process| process.pod.clone()),
        user: process
            .and_then(|process| process.uid)
            .map(|uid| sources.host.user(uid)),
        netns: process.and_then(|process| process.netns),
        ended: process.is_some_and(|process| process.ended),
        outstanding: 0,
        peak_outstanding: None,
        opened: tally.map(|tally| tally.opened),
        closed: tally.map(|tally| tally.closed),
        states: BTreeMap::new(),
        oldest_age_s: None,
        trend: trend(sources, &Group::Opener(owner)),
        stacks: Vec::new(),
        sockets: Vec::new(),
    }
}

/// The oldest first. They are put in order before they are told: of many only some may be wanted.
fn sockets(sources: &Sources<'_>, owner: Owner, entries: &[&Entry]) -> Vec<SocketReport> {
    let mut entries = entries.to_vec();
    entries.sort_by_cached_key(|entry| entry.order());
    let listed = usize::try_from(sources.listing.sockets_max).unwrap_or(usize::MAX);
    let listed = entries.into_iter().take(listed);
    listed.map(|entry| socket(sources, owner, entry)).collect()
}

fn ages<'a>(
    sources: &'a Sources<'_>,
    entries: &'a [&Entry],
) -> impl Iterator<Item = f64> + use<'a> {
    entries
        .iter()
        .filter_map(|entry| entry.opened_ns())
        .map(|opened_ns| seconds(sources.now_ns.saturating_sub(opened_ns)))
}

fn seconds(ns: u64) -> f64 {
    // Microseconds are more than an age needs, and keep the JSON short.
    (ns / 1000) as f64 / 1e6
}

/// Groups sockets by where they were opened, the largest group first.
fn stacks(sources: &Sources<'_>, entries: &[&Entry]) -> Vec<StackReport> {
    let mut groups: HashMap<Arc<Stack>, Vec<&Entry>> = HashMap::new();
    // One after the other most have the very same.
    for run in entries.chunk_by(|a, b| a.stack().is_same(b.stack())) {
        let group = groups.entry(stack_of(run[0])).or_default();
        group.extend_from_slice(run);
    }
    let mut reports: Vec<StackReport> = groups
        .into_iter()
        .map(|(stack, entries)| {
            let site = sources.site_rules.site(&stack.frames);
            StackReport {
                outstanding: entries.len() as u64,
                oldest_age_s: ages(sources, &entries).reduce(f64::max),
                youngest_age_s: ages(sources, &entries).reduce(f64::min),
                verdict: site.clone().and_then(|site| {
                    let group = Group::Site(Arc::new(site));
                    sources.groups?.judgement(&group, sources.now_ns).verdict
                }),
                site: site.map(SiteReport::from),
                frames: stack.frames.clone(),
                note: stack.note.clone(),
            }
        })
        .collect();
    reports.sort_by(|a, b| {
        (b.outstanding, &a.note, a.frames.len()).cmp(&(a.outstanding, &b.note, b.frames.len()))
    });
    reports
}

fn stack_of(entry: &Entry) -> Arc<Stack> {
    let note = match entry.stack() {
        StackRef::Known(stack) => return Arc::clone(stack),
        StackRef::Pending => "not resolved yet",
        StackRef::Inapplicable => "server end",
        StackRef::None(NoStack::Seeded) => "opened before tracing started",
        StackRef::None(NoStack::RingFull) => "stack lost: the event ring was full",
        StackRef::None(NoStack::QueueFull) => "stack lost: too many waited to be unwound",
        StackRef::None(NoStack::Missed) => "stack lost: its program was busy on that processor",
        StackRef::None(NoStack::Spared) => "stack not taken: the process connects too often",
        StackRef::None(NoStack::KernelWorker) => "io_uring worker: no user stack",
    };
    Arc::new(Stack {
        frames: Vec::new(),
        note: Some(note.to_owned()),
    })
}

fn socket(sources: &Sources<'_>, owner: Owner, entry: &Entry) -> SocketReport {
    let traffic = entry.traffic();
    let mut holders: SmallVec<[HolderReport; 2]> = entry
        .holders()
        .iter()
        .map(|holder| HolderReport {
            pid: holder.process().pid,
            fd: holder.fd,
        })
        .collect();
    holders.sort();
    let remembered = |opener: &Opener| OpenerName {
        pid: opener.process.pid,
        name: sources
            .processes
            .get(opener.process)
            .map_or_else(|| opener.comm.to_string(), |process| process.name.clone()),
    };
    SocketReport {
        local: entry.local(),
        remote: entry.remote(),
        state: entry.state().name().into(),
        opened_at: entry.opened_ns().map(|ns| sources.clock.rfc3339(ns)),
        holders,
        opener: entry
            .opener()
            .filter(|opener| owner != Owner::Process(opener.process))
            .map(remembered),
        netns: entry.netns(),
        idle_s: traffic.map(|traffic| sources.clock.jiffies_as_seconds(traffic.idle_jiffies)),
        rx_queue_bytes: traffic.map(|traffic| traffic.receive_queue_bytes),
        tx_queue_bytes: traffic.map(|traffic| traffic.send_queue_bytes),
        rx_bytes: traffic.map(|traffic| traffic.bytes_received),
        tx_bytes: traffic.map(|traffic| traffic.bytes_sent),
        redis: None,
    }
}

fn server(sources: &Sources<'_>, owner: Owner, account: &Account<'_>) -> ServerReport {
    let identity = identity(sources, owner);
    ServerReport {
        pid: identity.pid,
        name: identity.name,
        unit: identity.unit,
        outstanding: account.server_ends.len() as u64,
        states: states(&account.server_ends),
    }
}

fn states(entries: &[&Entry]) -> BTreeMap<String, u64> {
    let mut states: BTreeMap<TcpState, u64> = BTreeMap::new();
    for run in entries.chunk_by(|a, b| a.state() == b.state()) {
        *states.entry(run[0].state()).or_default() += run.len() as u64;
    }
    let states = states.into_iter();
    states
        .map(|(state, count)| (state.name().to_owned(), count))
        .collect()
}
