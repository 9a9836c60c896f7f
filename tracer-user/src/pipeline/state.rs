//! The state: all that is known without asking the kernel, told by a trace or by a recording.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;

use super::judging::Judging;
use crate::{
    accounting::{Groups, RunningCounts},
    clock::{self, Clock},
    decode::{
        DecodeError, Event,
        open_file::OpenFile,
        recording::{Header, Moment},
        socket::{NoStack, Socket, SocketId},
    },
    host::Host,
    process::{ProcessKey, Processes, netns_of_link},
    report::{
        Listing, Report, Sources, Tally, build,
        model::{Events, Lost},
    },
    sockets::{Drift, SocketTable},
    stacks::{KnownSites, Stack},
};

/// A live table is drawn every second; how sockets stand does not change a verdict that fast.
const LOOKED_AGE_NS: u64 = 5_000_000_000;

/// What the open files of a walk, of which one process's follow each other, need not be asked again.
#[derive(Default)]
struct Latest {
    holder: Option<ProcessKey>,
    has_told_hz: bool,
}

/// What is known without asking the kernel again.
pub(super) struct State {
    pub(super) table: SocketTable,
    pub(super) counts: RunningCounts,
    pub(super) groups: Groups,
    pub(super) processes: Processes,
    pub(super) clock: Clock,
    pub(super) host: Host,
    pub(super) judging: Judging,
    /// By the rules that it is judged by.
    pub(super) known_sites: KnownSites,
    /// Client ends that came and went, by opener, of which the groups are still to be told.
    pub(super) passed: HashMap<ProcessKey, u32>,
    /// Since the start, and of the latest reconcile.
    pub(super) drift: Drift,
    pub(super) latest_drift: Drift,
    pub(super) delivered: u64,
    pub(super) started_ns: u64,
    /// The latest time that is known: of an event, or when the kernel was last asked.
    pub(super) at_ns: u64,
    /// When the sockets were last looked at for the verdicts.
    pub(super) looked_ns: u64,
    pub(super) own_netns: Option<u32>,
}

impl State {
    pub(super) fn new(judging: Judging) -> Self {
        let started_ns = clock::boot_ns();
        Self {
            table: SocketTable::default(),
            counts: RunningCounts::new(own_netns()),
            groups: Groups::new(judging.verdicts, started_ns),
            processes: Processes::new("/proc"),
            clock: Clock::system(),
            host: Host::here(),
            judging,
            known_sites: KnownSites::default(),
            passed: HashMap::new(),
            drift: Drift::default(),
            latest_drift: Drift::default(),
            delivered: 0,
            started_ns,
            at_ns: started_ns,
            looked_ns: 0,
            own_netns: own_netns(),
        }
    }

    /// The state of the trace that wrote `header`, at its start.
    pub(super) fn recorded(header: &Header, judging: Judging) -> Self {
        let host = Host::recorded(
            header.host.clone(),
            header.kernel.clone(),
            header.boot_id.clone(),
        );
        Self {
            table: SocketTable::default(),
            counts: RunningCounts::new(header.netns),
            groups: Groups::new(judging.verdicts, header.started_ns),
            processes: Processes::recorded(),
            clock: Clock::fixed(i128::from(header.boot_at_ns), clock::HZ_UNKNOWN),
            host,
            judging,
            known_sites: KnownSites::default(),
            passed: HashMap::new(),
            drift: Drift::default(),
            latest_drift: Drift::default(),
            delivered: 0,
            started_ns: header.started_ns,
            at_ns: header.started_ns,
            looked_ns: 0,
            own_netns: header.netns,
        }
    }

    /// Takes over one event of a recording.
    pub(super) fn take_event(&mut self, bytes: &Bytes) -> Result<(), DecodeError> {
        self.tell(&Event::decode(bytes)?);
        Ok(())
    }

    pub(super) fn tell(&mut self, event: &Event) {
        // Another program on the machine is no event of a watched socket.
        self.delivered += u64::from(!matches!(event, Event::Program { .. }));
        self.at_ns = self.at_ns.max(event.time_ns().unwrap_or(0));
        self.table.apply(event);
        match event {
            Event::Connect { socket, .. } => self.meet_opener(socket),
            Event::Exec { process, comm } => self.processes.renew(*process, comm),
            Event::Exit { process, .. } => self.processes.end(*process),
            Event::Changed { .. }
            | Event::Destroyed { .. }
            | Event::Fork { .. }
            | Event::Program { .. } => {}
        }
        // Its opener is met by then, and with it the unit.
        if let Some(socket) = event.socket() {
            self.count(socket.id);
        }
    }

    pub(super) fn meet_opener(&mut self, socket: &Socket) {
        if let Some(opener) = socket.opener.as_ref().filter(|_| !socket.own) {
            self.processes
                .meet(opener.process, opener.comm, Some(opener.uid));
        }
    }

    /// Takes over a walk over the open files.
    pub(super) fn take_open_files(&mut self, open_files: impl Iterator<Item = OpenFile>) {
        self.table.forget_holders();
        let mut latest = Latest::default();
        for file in open_files {
            self.meet_holder(&file, &mut latest);
            self.table.hold(&file);
        }
    }

    /// Takes over open files of sockets of which nothing else will be known.
    pub(super) fn take_found(&mut self, open_files: impl Iterator<Item = OpenFile>) {
        let mut latest = Latest::default();
        for file in open_files {
            self.meet_holder(&file, &mut latest);
            self.table.find(&file);
        }
    }

    /// Meets whoever holds a socket, and learns the kernel's HZ on the way.
    fn meet_holder(&mut self, file: &OpenFile, latest: &mut Latest) {
        if let Some(holder) = &file.holder
            && latest.holder != Some(holder.process)
        {
            latest.holder = Some(holder.process);
            self.processes.meet(holder.process, holder.comm, None);
        }
        let (jiffies, monotonic_ns) = file.kernel_time;
        if jiffies != 0 && !latest.has_told_hz {
            latest.has_told_hz = true;
            self.clock.set_hz(jiffies, monotonic_ns);
        }
    }

    /// Makes one socket what the kernel's map says of it.
    pub(super) fn take_repair(&mut self, id: SocketId, record: Option<&Socket>) {
        self.table.repair(id, record, &mut self.drift);
    }

    /// Drops a socket that exists no more.
    pub(super) fn take_gone(&mut self, id: SocketId) {
        if let Some(entry) = self.table.get(id) {
            let opened_ns = entry.opened_ns();
            self.table.remove(id, opened_ns);
        }
    }

    pub(super) fn take_stack(&mut self, id: SocketId, opened_ns: Option<u64>, stack: Arc<Stack>) {
        if let Some(site) = self.known_sites.site(&self.judging.sites, &stack) {
            self.groups.set_site(id, opened_ns, site);
        }
        self.table.set_stack(id, opened_ns, stack);
    }

    pub(super) fn take_queue_full(&mut self, id: SocketId) {
        self.table.set_no_stack(id, NoStack::QueueFull);
    }

    /// The report of a trace whose kernel side said `moment` last.
    pub(super) fn report(
        &mut self,
        ports: &[u16],
        probes: BTreeMap<String, String>,
        moment: &Moment,
        listing: Listing,
    ) -> Report {
        let tally = |&(process, opened, closed): &_| (process, Tally { opened, closed });
        let tallies: HashMap<ProcessKey, Tally> = moment.tallies.iter().map(tally).collect();
        for &process in tallies.keys() {
            // Met before, unless the ring lost its connects.
            self.processes.meet(process, "", None);
        }
        let counters = &moment.counters;
        if moment.now_ns.saturating_sub(self.looked_ns) >= LOOKED_AGE_NS {
            self.look(moment.now_ns);
        }
        let mut sources = self.sources(ports, moment.now_ns);
        sources.groups = Some(&self.groups);
        sources.port_standing = self.port_standing(ports);
        sources.probes = probes;
        sources.listing = listing;
        sources.tallies = Some(tallies);
        sources.lost = Lost::from_counters(counters);
        sources.events = Some(Events {
            seen: counters.seen,
            matched: counters.matched,
            delivered: self.delivered,
        });
        build(&sources)
    }

    /// What a report is made from, without the kernel side's own numbers.
    pub(super) fn sources<'a>(&'a self, ports: &'a [u16], now_ns: u64) -> Sources<'a> {
        Sources {
            table: &self.table,
            processes: &self.processes,
            host: &self.host,
            clock: &self.clock,
            site_rules: &self.judging.sites,
            ports,
            listing: Listing::FULL,
            groups: None,
            port_standing: None,
            netns: self.own_netns,
            probes: BTreeMap::new(),
            tallies: None,
            lost: Lost::default(),
            drift: self.drift,
            latest_drift: self.latest_drift,
            events: None,
            started_ns: self.started_ns,
            now_ns,
        }
    }
}

fn own_netns() -> Option<u32> {
    netns_of_link(Path::new("/proc/self/ns/net"))
}
