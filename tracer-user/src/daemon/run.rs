//! A run of the daemon: from the configuration to SIGTERM.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::act::Done;
use super::chronicle;
use super::control::{Answer, Asked, Control, Request};
use super::due::Due;
use super::exports::Exports;
use super::http::Scrape;
use super::journal::{Journal, Priority};
use super::notify::Notify;
use super::options::DaemonOptions;
use super::probing::{Probing, Told};
use super::store::Store;
use super::usage::{self, Usage};
use super::words;
use crate::action::evidence::{Evidence, EvidenceStore};
use crate::clock;
use crate::config::Config;
use crate::history::Writer;
use crate::pipeline::{Judging, Tracer};
use crate::policy::machine::Machine;
use crate::policy::rules::Rules;
use crate::policy::state::BootTime;
use crate::policy::timestamp::Timestamp;

/// A burst of connects is observed this often, not once a connect.
const OBSERVE_APART: Duration = Duration::from_millis(10);
/// Of a report that somebody asks for, perhaps every second.
const HOLDERS_AGE_MAX: Duration = Duration::from_secs(5);

pub(super) struct Daemon {
    pub(super) options: DaemonOptions,
    pub(super) config: Arc<Config>,
    pub(super) tracer: Tracer,
    pub(super) machine: Machine,
    pub(super) store: Store,
    pub(super) evidence: EvidenceStore,
    /// Of actions whose evidence did not fit on the disk.
    pub(super) unwritten: HashMap<u64, Evidence>,
    pub(super) journal: Journal,
    pub(super) notify: Notify,
    pub(super) probing: Option<Probing>,
    /// None where the configuration wants none.
    pub(super) history: Option<Writer>,
    pub(super) done: mpsc::UnboundedSender<Done>,
    /// Every unit that was seen listening, and our own: never acted on.
    pub(super) spared: BTreeSet<String>,
    pub(super) holders_at_ns: u64,
    pub(super) observed_at: Instant,
    pub(super) started_at: String,
    pub(super) started_ns: u64,
    /// Failures that are not said again while they last.
    pub(super) said: BTreeSet<&'static str>,
    pub(super) exports: Exports,
    pub(super) usage: Usage,
    pub(super) due: Due,
}

enum Wake {
    Traced,
    Time,
    Redis(Told),
    Done(Done),
    Asked(Asked),
    Scraped(Scrape),
    Reload,
    Stop,
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

/// # Errors
///
/// The configuration is wrong, another daemon runs, or tracing cannot run here.
pub async fn run(options: DaemonOptions) -> Result<()> {
    let config = options.config()?;
    let hangup = signal(SignalKind::hangup())?;
    let journal = Journal::open();
    let (asked_sender, mut asked) = mpsc::channel(16);
    let (control, warning) =
        Control::open(&config.daemon.socket, &config.daemon.group, asked_sender)?;
    if let Some(warning) = warning {
        journal.say(Priority::Warning, &warning, &[("EVENT", "control")]);
    }
    let tracer = Tracer::start(&options.tracing(&config), Judging::from(&config))?;
    usage::allow(&tracer, &config.limits);
    // Only now: while the kernel verifies the programs nobody would hear them. Until here they end
    // the process, and what was attached goes with its descriptors.
    let mut signals = Signals {
        hangup,
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    };
    let (done_sender, mut done) = mpsc::unbounded_channel();
    let mut daemon = Daemon::new(options, config, tracer, journal, done_sender)?;
    daemon.begin();
    loop {
        let wake = daemon.wait(&mut signals, &mut done, &mut asked).await?;
        match wake {
            Wake::Traced => daemon.observe_soon().await,
            Wake::Time => daemon.on_time().await,
            Wake::Redis(Told::Change(change)) => words::say_health(&daemon.journal, &change),
            Wake::Redis(Told::Report) => daemon.observe().await,
            Wake::Done(done) => daemon.take_outcome(done).await,
            Wake::Asked((request, to)) => {
                let answer = daemon.answer(request).await;
                // Whoever asked may be gone.
                let _ = to.send(answer);
            }
            Wake::Scraped(scrape) => {
                daemon.answer_scrape(scrape);
                // A report takes over what is in the ring.
                daemon.observe_soon().await;
            }
            Wake::Reload => daemon.reload().await,
            Wake::Stop => break,
        }
    }
    daemon.end();
    drop(control);
    Ok(())
}

impl Daemon {
    fn new(
        options: DaemonOptions,
        config: Config,
        tracer: Tracer,
        journal: Journal,
        done: mpsc::UnboundedSender<Done>,
    ) -> Result<Self> {
        let now_ns = clock::boot_ns();
        let boot = BootTime {
            boot_id: tracer.host().boot_id.clone(),
            now: timestamp(now_ns),
        };
        let store = Store::new(&config.daemon.state_dir);
        let (stored, error) = store.load(&boot);
        if let Some(error) = error {
            journal.say(Priority::Error, &error.to_string(), &[("EVENT", "state")]);
        }
        let (machine, decisions) = Machine::start(Rules::from(&config), stored, &boot);
        for decision in &decisions {
            words::say(&journal, decision);
        }
        let probing = Probing::start(&config).context("failed to probe redis")?;
        let history = chronicle::writer(&config).context("failed to keep a history")?;
        let notify = Notify::open();
        let mut daemon = Self {
            evidence: evidence_store(&config),
            unwritten: HashMap::new(),
            spared: own_unit().into_iter().collect(),
            holders_at_ns: now_ns,
            observed_at: Instant::now(),
            started_at: tracer.clock().rfc3339(now_ns),
            started_ns: now_ns,
            said: BTreeSet::new(),
            exports: Exports::off(),
            usage: Usage::new(),
            due: Due::new(&config, history.is_some(), notify.interval()),
            config: Arc::new(config),
            options,
            tracer,
            machine,
            store,
            journal,
            notify,
            probing,
            history,
            done,
        };
        daemon.spare_listeners();
        for decision in decisions {
            daemon.keep_decision(&decision);
            daemon.complete(&decision);
        }
        Ok(daemon)
    }

    /// The hooks are attached: from here on nothing is missed.
    fn begin(&mut self) {
        self.save();
        let text = format!(
            "connleak {} watches {}{}",
            env!("CARGO_PKG_VERSION"),
            self.ports(),
            if self.config.policy.dry_run {
                ", dry run"
            } else {
                ""
            },
        );
        self.journal
            .say(Priority::Notice, &text, &[("EVENT", "started")]);
        words::say_refusals(&self.journal, self.tracer.probes());
        self.notify.ready(&text);
        self.start_exports(None);
        // What is there already is judged, too.
        self.due.observe = Some(Instant::now());
    }

    async fn wait(
        &mut self,
        signals: &mut Signals,
        done: &mut mpsc::UnboundedReceiver<Done>,
        asked: &mut mpsc::Receiver<Asked>,
    ) -> Result<Wake> {
        let next = self.next_due();
        Ok(tokio::select! {
            stepped = self.tracer.step() => {
                stepped?;
                Wake::Traced
            }
            () = sleep_until(next) => Wake::Time,
            told = Probing::next(&mut self.probing) => Wake::Redis(told),
            Some(done) = done.recv() => Wake::Done(done),
            Some(asked) = asked.recv() => Wake::Asked(asked),
            scrape = self.exports.next() => Wake::Scraped(scrape),
            _ = signals.hangup.recv() => Wake::Reload,
            _ = signals.terminate.recv() => Wake::Stop,
            _ = signals.interrupt.recv() => Wake::Stop,
        })
    }

    async fn observe_soon(&mut self) {
        if !self.tracer.counts_changed() {
            return;
        }
        let earliest = self.observed_at + OBSERVE_APART;
        if earliest <= Instant::now() {
            self.observe().await;
        } else {
            self.due.observe = Some(self.due.observe.unwrap_or(earliest));
        }
    }

    pub(super) async fn observe(&mut self) {
        self.due.observe = None;
        let now_ns = clock::boot_ns();
        self.observed_at = Instant::now();
        let decisions = self.judge(now_ns);
        self.follow(decisions).await;
    }

    async fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Status => Answer::Status(Box::new(self.status())),
            Request::Ack => {
                let was_manual = self.machine.manual().is_some();
                let decisions = self.machine.ack(timestamp(clock::boot_ns()));
                self.follow(decisions).await;
                Answer::Acked { was_manual }
            }
            Request::Report { listing } => match self.tracer.glance(listing, HOLDERS_AGE_MAX) {
                Ok(report) => Answer::Report(Box::new(report)),
                Err(error) => Answer::Error {
                    message: format!("{error:#}"),
                },
            },
        }
    }

    fn end(&mut self) {
        self.notify.stopping();
        self.machine.stopped_on_purpose();
        self.save();
        self.keep_sample();
        self.journal
            .say(Priority::Notice, "stopped", &[("EVENT", "stopped")]);
    }
}

pub(super) fn timestamp(boot_ns: u64) -> Timestamp {
    Timestamp::from_boottime(Duration::from_nanos(boot_ns))
}

pub(super) fn evidence_store(config: &Config) -> EvidenceStore {
    let files = usize::try_from(config.daemon.evidence_files).unwrap_or(usize::MAX);
    EvidenceStore::new(config.daemon.evidence_dir.clone(), files)
}

/// A daemon that restarts itself never sees whether it helped.
fn own_unit() -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    crate::process::placement(&text).unit
}
