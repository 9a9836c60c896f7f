//! The pipeline: the only place that sees all stages, from the kernel's events to a report.

mod standing;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;

use crate::{
    accounting::RunningCounts,
    clock::{self, Clock},
    decode::{
        Event,
        open_file::{self, OpenFile},
        socket::{NoStack, Socket, SocketId},
    },
    host::Host,
    kernel::{Kernel, Maps, Options, Probes, Ring, Walk},
    process::{ProcessKey, Processes},
    report::{
        self, Report, Sources, Tally,
        model::{Events, Lost},
    },
    sockets::{Drift, SocketTable},
    stacks::{Background, ResolverConfig, SiteRules},
};

/// Which life of which socket a stack belongs to.
type StackTag = (SocketId, Option<u64>);

/// Changes younger than this may still be on their way while a list is walked.
const SETTLED: Duration = Duration::from_millis(50);

/// A running trace: the kernel side attached, and everything it said kept up to date.
pub struct Tracer {
    kernel: Kernel,
    ring: Ring,
    maps: Maps,
    probes: Probes,
    ports: Vec<u16>,
    stacks: Background<StackTag>,
    state: State,
}

/// What is known without asking the kernel again.
struct State {
    table: SocketTable,
    counts: RunningCounts,
    processes: Processes,
    clock: Clock,
    host: Host,
    site_rules: SiteRules,
    drift: Drift,
    delivered: u64,
    undecodable: u64,
    started_ns: u64,
    own_netns: Option<u32>,
}

impl State {
    fn new(site_rules: SiteRules) -> Self {
        Self {
            table: SocketTable::default(),
            counts: RunningCounts::new(own_netns()),
            processes: Processes::new("/proc"),
            clock: Clock::system(),
            host: Host::here(),
            site_rules,
            drift: Drift::default(),
            delivered: 0,
            undecodable: 0,
            started_ns: clock::boot_ns(),
            own_netns: own_netns(),
        }
    }

    /// Meets whoever holds a socket, and learns the kernel's HZ on the way.
    fn take_open_files(&mut self, open_files: &[OpenFile]) {
        for file in open_files {
            if let Some(holder) = &file.holder {
                self.processes.meet(holder.process, &holder.comm, None);
            }
        }
        if let Some((jiffies, monotonic_ns)) = open_files
            .iter()
            .map(|file| file.kernel_time)
            .find(|&(jiffies, _)| jiffies != 0)
        {
            self.clock.set_hz(jiffies, monotonic_ns);
        }
        self.table.set_holders(open_files);
    }
}

impl Tracer {
    /// Loads and attaches the kernel side, and finds the sockets that are open already.
    ///
    /// # Errors
    ///
    /// Tracing cannot run here; nothing stays attached.
    pub fn start(options: &Options, site_rules: SiteRules) -> Result<Self> {
        let mut kernel = Kernel::load(options)?;
        let ring = kernel.take_ring()?;
        let maps = kernel.take_maps()?;
        let probes = kernel.attach()?;
        let stacks = Background::start(ResolverConfig::default())
            .context("failed to start the stack thread")?;
        let mut tracer = Self {
            kernel,
            ring,
            maps,
            probes,
            ports: options.ports.clone(),
            stacks,
            state: State::new(site_rules),
        };
        tracer.reconcile()?;
        // What was open before the start is no drift.
        tracer.state.drift = Drift::default();
        tracer.state.counts.begin(clock::boot_ns());
        tracer.kernel.release_types();
        Ok(tracer)
    }

    pub fn probes(&self) -> &Probes {
        &self.probes
    }

    /// Waits for the kernel side or for a stack, and takes over everything that is there.
    ///
    /// # Errors
    ///
    /// Waiting on the ring failed.
    pub async fn step(&mut self) -> Result<()> {
        tokio::select! {
            ready = self.ring.ready() => ready?,
            Some(((id, opened_ns), stack)) = self.stacks.next() => {
                self.state.table.set_stack(id, opened_ns, stack);
            }
        }
        self.drain();
        Ok(())
    }

    /// Takes over every event and stack that is there already.
    pub fn drain(&mut self) {
        while let Some(bytes) = self.ring.pop() {
            self.take(&bytes);
        }
        while let Some(((id, opened_ns), stack)) = self.stacks.try_next() {
            self.state.table.set_stack(id, opened_ns, stack);
        }
    }

    fn take(&mut self, bytes: &Bytes) {
        self.state.delivered += 1;
        let Ok(event) = Event::decode(bytes) else {
            // The object is embedded in this very binary: it can only be a bug of ours.
            debug_assert!(false, "the kernel side sent bytes that are no event");
            self.state.undecodable += 1;
            return;
        };
        self.state.table.apply(&event);
        if let Event::Connect { socket, .. }
        | Event::Changed { socket }
        | Event::Destroyed { socket, .. } = &event
        {
            self.state.count(socket.id);
        }
        match event {
            Event::Connect { socket, sample } => {
                let Some(opener) = &socket.opener else { return };
                if socket.own {
                    return;
                }
                self.state
                    .processes
                    .meet(opener.process, &opener.comm, Some(opener.uid));
                if let Some(sample) = sample {
                    let tag = (socket.id, socket.opened_ns);
                    if !self.stacks.ask(tag, opener.process, sample) {
                        self.state.table.set_no_stack(socket.id, NoStack::QueueFull);
                    }
                }
            }
            Event::Exec { process, comm } => {
                self.state.processes.renew(process, &comm);
                self.stacks.forget(process);
            }
            Event::Exit { process, .. } => {
                self.state.processes.end(process);
                self.stacks.forget(process);
            }
            Event::Changed { .. } | Event::Destroyed { .. } | Event::Fork { .. } => {}
        }
    }

    /// Compares the table with the kernel's map and with the sockets that exist, and repairs it.
    ///
    /// # Errors
    ///
    /// The kernel refused a look-up or a walk.
    pub fn reconcile(&mut self) -> Result<Drift> {
        let before = self.state.drift;
        let settled_ns = clock::boot_ns().saturating_sub(SETTLED.as_nanos() as u64);
        // The walks add to the map what it does not have.
        let mut files = self.walk(Walk::OpenFiles)?;
        let hashed = self.walk(Walk::TcpSockets)?;
        self.drain();
        let records: Vec<Socket> = self
            .maps
            .sockets()?
            .iter()
            .map(|(id, record)| Socket::from_record(*id, record))
            .collect();
        self.drain();
        for id in self.state.table.suspects(&records) {
            let record = self.maps.socket(id.0)?;
            self.drain();
            let record = record.map(|record| Socket::from_record(id.0, &record));
            let State { table, drift, .. } = &mut self.state;
            table.repair(id, record.as_ref(), drift);
        }
        self.state.take_open_files(&files);
        files.extend(hashed);
        let walked: HashSet<u32> = self.state.own_netns.into_iter().collect();
        for id in self.state.table.gone(&files, &walked, settled_ns) {
            // It may have ended since the walk: then the map knows.
            if self.maps.socket(id.0)?.is_some() {
                self.maps.forget_socket(id.0)?;
                self.state.drift.gone += 1;
            }
            self.drain();
            if let Some(entry) = self.state.table.get(id) {
                let opened_ns = entry.socket.opened_ns;
                self.state.table.remove(id, opened_ns);
            }
        }
        self.state.count_all();
        let after = self.state.drift;
        Ok(Drift {
            missed_notice: after.missed_notice - before.missed_notice,
            gone: after.gone - before.gone,
            untracked: after.untracked - before.untracked,
        })
    }

    fn walk(&mut self, walk: Walk) -> Result<Vec<OpenFile>> {
        let bytes = self.kernel.walk(walk)?;
        Ok(open_file::decode(&bytes, |port| {
            self.ports.contains(&port)
        })?)
    }

    /// Waits until every stack that was taken is named, at most for `limit`.
    pub async fn settle_stacks(&mut self, limit: Duration) {
        let _ = tokio::time::timeout(limit, async {
            while self.stacks.waiting() > 0 {
                if let Some(((id, opened_ns), stack)) = self.stacks.next().await {
                    self.state.table.set_stack(id, opened_ns, stack);
                }
            }
        })
        .await;
    }

    /// What is outstanding now, holders looked up afresh.
    ///
    /// # Errors
    ///
    /// The kernel refused a look-up or a walk.
    pub fn report(&mut self) -> Result<Report> {
        self.drain();
        let open_files = self.walk(Walk::OpenFiles)?;
        self.drain();
        self.state.take_open_files(&open_files);
        let tallies: HashMap<ProcessKey, Tally> = self
            .maps
            .openers()?
            .into_iter()
            .map(|(key, counts)| {
                (
                    ProcessKey {
                        pid: key.tgid,
                        start_time_ns: key.start_ns,
                    },
                    Tally {
                        opened: counts.opened,
                        closed: counts.closed,
                    },
                )
            })
            .collect();
        for &process in tallies.keys() {
            // Met before, unless the ring lost its connects.
            self.state.processes.meet(process, "", None);
        }
        let counters = self.maps.counters()?;
        let probes = self
            .probes
            .taken
            .iter()
            .map(|(hook, by)| (hook.to_string(), (*by).to_owned()))
            .collect();
        Ok(report::build(&self.sources(
            probes,
            Some(tallies),
            Lost::from_counters(&counters),
            Some(Events {
                seen: counters.seen,
                matched: counters.matched,
                delivered: self.state.delivered,
            }),
        )))
    }

    fn sources(
        &self,
        probes: BTreeMap<String, String>,
        tallies: Option<HashMap<ProcessKey, Tally>>,
        lost: Lost,
        events: Option<Events>,
    ) -> Sources<'_> {
        self.state
            .sources(&self.ports, probes, tallies, lost, events)
    }
}

impl State {
    fn sources<'a>(
        &'a self,
        ports: &'a [u16],
        probes: BTreeMap<String, String>,
        tallies: Option<HashMap<ProcessKey, Tally>>,
        lost: Lost,
        events: Option<Events>,
    ) -> Sources<'a> {
        Sources {
            table: &self.table,
            processes: &self.processes,
            host: &self.host,
            clock: &self.clock,
            site_rules: &self.site_rules,
            ports,
            probes,
            tallies,
            lost,
            drift: self.drift,
            events,
            started_ns: self.started_ns,
            now_ns: clock::boot_ns(),
        }
    }
}

/// Looks once, traces nothing: every watched socket with its holders.
///
/// # Errors
///
/// The kernel refused the iterators.
pub fn snapshot(ports: &[u16], btf: Option<std::path::PathBuf>) -> Result<Report> {
    let mut kernel = Kernel::load_to_look(ports, btf)?;
    let bytes = kernel.walk(Walk::OpenFiles)?;
    let open_files = open_file::decode(&bytes, |port| ports.contains(&port))?;
    let mut state = State::new(SiteRules::default());
    for file in &open_files {
        if let Some(socket) = Socket::from_open_file(file) {
            state.table.change(&socket);
        }
    }
    state.take_open_files(&open_files);
    let sources = state.sources(ports, BTreeMap::new(), None, Lost::default(), None);
    Ok(report::build(&sources))
}

fn own_netns() -> Option<u32> {
    let link = fs::read_link("/proc/self/ns/net").ok()?;
    link.to_str()?
        .strip_prefix("net:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}
