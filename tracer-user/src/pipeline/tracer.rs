//! The tracer: asks the kernel, and tells the state what it says.

use std::{
    collections::{BTreeMap, HashSet},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::time::sleep_until;

use super::{
    doubt::Doubt, judging::Judging, namespaces, passing::Passing, recorder::Recorder, state::State,
};
use crate::{
    clock,
    decode::{
        interpreter,
        open_file::{self, OpenFiles},
        recording::{Entry, Moment},
        socket::{Socket, SocketId},
    },
    kernel::{Counters, Kernel, KernelError, Maps, Options, Probes, Ring, Walk},
    process::ProcessKey,
    report::{Listing, Report},
    sockets::Drift,
    stacks::{Announcement, Background, Stack},
};

/// Which life of which socket a stack belongs to.
type StackTag = (SocketId, Option<u64>);

/// Changes younger than this may still be on their way while a list is walked.
const SETTLED: Duration = Duration::from_millis(50);

/// A running trace: the kernel side attached, and everything it said kept up to date.
pub struct Tracer {
    kernel: Kernel,
    pub(super) ring: Ring,
    pub(super) maps: Maps,
    probes: Probes,
    pub(super) ports: Vec<u16>,
    pub(super) stacks: Background<StackTag>,
    pub(super) passing: Passing,
    /// Every notice is taken as it is told, not as the socket is by now: what a process left open
    /// shows in between.
    pub(super) is_literal: bool,
    pub(super) recorder: Option<Recorder>,
    doubt: Doubt,
    /// When the open files were last walked.
    pub(super) walked_ns: u64,
    pub(super) state: State,
}

impl Tracer {
    /// Loads and attaches the kernel side, and finds the sockets that are open already.
    ///
    /// # Errors
    ///
    /// Tracing cannot run here; nothing stays attached.
    pub fn start(options: &Options, judging: Judging) -> Result<Self> {
        Self::start_recorded(options, judging, None)
    }

    /// JVMs may be asked, with `jcmd`, to write down what they have compiled, or not.
    pub fn allow_java_perfmap(&self, may: bool) {
        self.stacks.allow_java_perfmap(may);
    }

    /// Naming stacks may take so much of one CPU, and finding interpreters as much again; at first it
    /// is what they like.
    pub fn allow_background_cpu(&self, percent: u32) {
        self.stacks.allow_cpu(percent);
    }

    /// Starts it, and writes all it is told to `recorder`.
    ///
    /// # Errors
    ///
    /// As [`Tracer::start`].
    pub fn start_recorded(
        options: &Options,
        judging: Judging,
        recorder: Option<Recorder>,
    ) -> Result<Self> {
        let mut kernel = Kernel::load(options)?;
        let ring = kernel.take_ring()?;
        let maps = kernel.take_maps()?;
        let probes = kernel.attach()?;
        let mut interpreters = kernel.take_interpreters()?;
        let follow = move |found: &Announcement| {
            // Full: the process's stacks say that its interpreter was not known.
            let _ = interpreters.follow(found.pid, interpreter::order(found));
        };
        let stacks = Background::start(judging.naming.clone(), follow)
            .context("failed to start the stack thread")?;
        let mut tracer = Self {
            kernel,
            ring,
            maps,
            probes,
            ports: options.ports.clone(),
            stacks,
            passing: Passing::default(),
            recorder,
            doubt: Doubt::default(),
            is_literal: options.follow_children,
            walked_ns: 0,
            state: State::new(judging),
        };
        if let Some(recorder) = &mut tracer.recorder {
            tracer.state.processes.remember_looked_up();
            recorder.header(&tracer.state, &tracer.ports, &tracer.probes);
        }
        tracer.reconcile()?;
        // What was open before the start is no drift.
        tracer.state.drift = Drift::default();
        tracer.state.latest_drift = Drift::default();
        tracer.state.begin(clock::boot_ns());
        tracer.kernel.release_types();
        tracer.record(|recorder, state| recorder.reconciled(state));
        tracer.moment()?;
        tracer.record(|recorder, _| recorder.flush());
        Ok(tracer)
    }

    pub fn probes(&self) -> &Probes {
        &self.probes
    }

    /// Waits for the kernel side or for a stack, and takes over everything that is there. What the
    /// kernel left out is set right.
    ///
    /// # Errors
    ///
    /// Waiting on the ring failed, or reconciling did.
    pub async fn step(&mut self) -> Result<()> {
        let pause_end = self.ring.pause_end();
        let are_stacks_due = self.stacks.waiting() > 0;
        let stack = async {
            // Each wakes us by itself; with the pause, they come together.
            sleep_until(pause_end).await;
            self.stacks.next().await
        };
        tokio::select! {
            biased;
            ready = self.ring.ready() => ready?,
            Some((tag, stack)) = stack, if are_stacks_due => {
                self.take_stack(tag, stack);
                self.take_stacks();
                self.record(|recorder, _| recorder.flush());
                return Ok(());
            }
            () = self.doubt.due() => {
                if self.doubt.remains(self.counters()?.program_busy) {
                    self.reconcile()?;
                }
                return Ok(());
            }
        }
        self.doubt.arm();
        self.drain_for_now();
        self.record(|recorder, _| recorder.flush());
        Ok(())
    }

    pub(super) fn take_stack(&mut self, (id, opened_ns): StackTag, stack: Arc<Stack>) {
        self.record(|recorder, _| recorder.stack(id, opened_ns, &stack));
        self.state.take_stack(id, opened_ns, stack);
    }

    /// Takes over a walk over the open files.
    fn take_open_files(&mut self, open_files: &OpenFiles) {
        let bytes = open_files.bytes();
        self.record(|recorder, _| recorder.write(&Entry::OpenFiles(bytes.clone())));
        self.state.take_open_files(open_files.files(&self.ports));
        self.record(Recorder::processes);
    }

    pub(super) fn record(&mut self, write: impl FnOnce(&mut Recorder, &mut State)) {
        if let Some(recorder) = &mut self.recorder {
            write(recorder, &mut self.state);
        }
    }

    /// Why recording stopped, if it did since this was last asked. Tracing goes on.
    pub fn take_recording_failure(&mut self) -> Option<anyhow::Error> {
        self.recorder.as_mut()?.take_failure()
    }

    /// Compares the table with the kernel's map and with the sockets that exist, and repairs it.
    ///
    /// # Errors
    ///
    /// The kernel refused a look-up or a walk.
    pub fn reconcile(&mut self) -> Result<Drift> {
        let before = self.state.drift;
        let program_busy = self.counters()?.program_busy;
        self.doubt.settle(program_busy);
        let settled_ns = clock::boot_ns().saturating_sub(SETTLED.as_nanos() as u64);
        self.maps.take_back_slots();
        // The walks add to the map what it does not have.
        let open_files = self.walk_open_files()?;
        let mut alive = self.walk_tcp_sockets()?;
        self.drain();
        let suspects = self.suspects()?;
        self.drain();
        for id in suspects {
            let record = self.maps.socket(id.0)?;
            self.drain();
            self.record(|recorder, _| recorder.write(&Entry::Repaired(id.0, record)));
            let record = record.map(|record| Socket::from_record(id.0, &record));
            self.state.take_repair(id, record.as_ref());
        }
        self.take_open_files(&open_files);
        alive.extend(open_files.sockets());
        drop(open_files);
        let mut gone = self.gone(alive, settled_ns)?;
        if !gone.is_empty() {
            // A walk beside a busy kernel can miss a socket; two walks do not miss the same one.
            let open_files = self.walk_open_files()?;
            let mut alive = self.walk_tcp_sockets()?;
            alive.extend(open_files.sockets());
            let again = self.gone(alive, settled_ns)?;
            gone.retain(|life| again.contains(life));
        }
        for (id, opened_ns) in gone {
            // It may have ended since the walk: then the map knows.
            if self.maps.end_socket(id.0, opened_ns.unwrap_or(0))? {
                self.state.drift.gone += 1;
            }
            self.drain();
            // Another may have begun at its address.
            let known = self.state.table.get(id);
            if known.is_some_and(|entry| entry.opened_ns() == opened_ns) {
                self.record(|recorder, _| recorder.write(&Entry::Gone(id.0)));
                self.state.take_gone(id);
            }
        }
        self.state.at_ns = clock::boot_ns();
        self.state.count_all();
        self.state.latest_drift = self.state.drift.since(before);
        self.record(|recorder, state| recorder.reconciled(state));
        self.moment()?;
        self.record(|recorder, _| recorder.flush());
        Ok(self.state.latest_drift)
    }

    /// Sockets that the kernel's map tells otherwise than the table.
    fn suspects(&self) -> Result<Vec<SocketId>> {
        let mut comparison = self.state.table.compare();
        self.maps.each_socket(|id, record| {
            comparison.see(&Socket::from_record(id, record));
        })?;
        Ok(comparison.suspects())
    }

    /// Sockets of the table that neither the walks of this namespace found `alive`, nor TCP's lists
    /// in other namespaces have.
    fn gone(
        &mut self,
        mut alive: HashSet<SocketId>,
        settled_ns: u64,
    ) -> Result<Vec<(SocketId, Option<u64>)>> {
        let mut walked: HashSet<u32> = self.state.own_netns.into_iter().collect();
        for (netns, namespace) in namespaces::foreign(&self.state) {
            let take = |lines: &[u8]| alive.extend(open_file::sockets(lines));
            let namespace = namespace.as_fd();
            match self.kernel.walk_each_in(Walk::TcpSockets, namespace, take) {
                // Without the right to enter it, what its events told is believed.
                Err(KernelError::NamespaceNotPermitted) => continue,
                done => done?,
            }
            walked.insert(netns);
        }
        self.drain();
        Ok(self.state.table.gone(&alive, &walked, settled_ns))
    }

    pub(super) fn walk_open_files(&mut self) -> Result<OpenFiles> {
        let bytes = self.kernel.walk(Walk::OpenFiles)?;
        self.walked_ns = clock::boot_ns();
        Ok(OpenFiles::new(bytes)?)
    }

    fn walk_tcp_sockets(&mut self) -> Result<HashSet<SocketId>> {
        let mut found = HashSet::new();
        self.kernel.walk_each(Walk::TcpSockets, |lines| {
            found.extend(open_file::sockets(lines));
        })?;
        Ok(found)
    }

    /// Waits until every stack that was taken is named, at most for `limit`.
    pub async fn settle_stacks(&mut self, limit: Duration) {
        let _hurry = self.stacks.hurry();
        let _ = tokio::time::timeout(limit, async {
            while self.stacks.waiting() > 0 {
                if let Some((tag, stack)) = self.stacks.next().await {
                    self.take_stack(tag, stack);
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
        let open_files = self.walk_open_files()?;
        self.drain();
        // Not recorded: a live table looks every second, and only the last look counts.
        self.state.take_open_files(open_files.files(&self.ports));
        self.record(Recorder::processes);
        let moment = self.ask_moment()?;
        Ok(self.report_of(&moment, Listing::FULL))
    }

    /// The last report, with which a recording ends.
    ///
    /// # Errors
    ///
    /// The kernel refused a look-up or a walk.
    pub fn finish(&mut self) -> Result<Report> {
        self.drain();
        let open_files = self.walk_open_files()?;
        self.drain();
        self.take_open_files(&open_files);
        let moment = self.moment()?;
        let report = self.report_of(&moment, Listing::FULL);
        self.record(|recorder, state| {
            recorder.processes(state);
            recorder.write(&Entry::End);
            recorder.flush();
        });
        Ok(report)
    }

    pub(super) fn report_of(&mut self, moment: &Moment, listing: Listing) -> Report {
        let probes = taken(&self.probes);
        self.state.report(&self.ports, probes, moment, listing)
    }

    /// The kernel side's numbers, written down where a recording is made.
    fn moment(&mut self) -> Result<Moment> {
        let moment = self.ask_moment()?;
        self.state.look(moment.now_ns);
        self.record(|recorder, _| recorder.write(&Entry::Moment(moment.clone())));
        Ok(moment)
    }

    pub(super) fn counters(&self) -> Result<Counters> {
        // Misses first: what a twin makes good meanwhile must not be settled as one that is lost,
        // and hide the next that is.
        let misses = self.kernel.misses(&self.probes);
        let mut counters = self.maps.counters()?;
        counters.program_busy += misses.lost(counters.caught_up);
        Ok(counters)
    }

    pub(super) fn ask_moment(&self) -> Result<Moment> {
        let own_pid = std::process::id();
        let tallies = self
            .maps
            .openers()?
            .into_iter()
            // A followed process has an entry before it opens anything.
            .filter(|(key, counts)| key.tgid != own_pid && counts.opened > 0)
            .map(|(key, counts)| {
                let process = ProcessKey {
                    pid: key.tgid,
                    start_time_ns: key.start_ns,
                };
                (process, counts.opened, counts.closed)
            })
            .collect();
        Ok(Moment {
            tallies,
            counters: self.counters()?,
            now_ns: clock::boot_ns(),
        })
    }
}

/// Which hook gives each kind of event.
pub(super) fn taken(probes: &Probes) -> BTreeMap<String, String> {
    let taken = probes.taken.iter();
    taken
        .map(|(hook, by)| (hook.to_string(), (*by).to_owned()))
        .collect()
}
