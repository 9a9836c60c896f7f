//! What the daemon gives out beside its journal: each part is off until it is configured.

use std::time::Duration;

use anyhow::{Result, anyhow};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::http::{Scrape, Server, Wanted};
use super::journal::Priority;
use super::metrics;
use super::otlp::{OtlpSender, OtlpStatus};
use super::run::Daemon;
use super::stream::{StreamStatus, StreamWriter};
use crate::clock;
use crate::config::{self, Config};
use crate::metrics::{Digest, Exposition, Family, Series, Span, otlp, stack_id};
use crate::report::model::{Report, StackReport};
use crate::report::{Listing, Whose};

/// What a metric can be of.
const EXPORTED: Listing = Listing {
    whose: Whose::Everybody,
    sockets_max: 0,
};
/// Reconciling looks at the holders; a scrape does not have to, unless nobody reconciles.
const HOLDERS_AGE_MAX: Duration = Duration::from_secs(300);

pub(super) struct Exports {
    scrapes: mpsc::Receiver<Scrape>,
    /// Given to every server.
    to_us: mpsc::Sender<Scrape>,
    server: Option<Server>,
    series: Series,
    stream: Option<StreamWriter>,
    otlp: Option<OtlpSender>,
    stream_due: Option<Instant>,
    otlp_due: Option<Instant>,
}

impl Exports {
    pub(super) fn off() -> Self {
        let (to_us, scrapes) = mpsc::channel(16);
        Self {
            scrapes,
            to_us,
            server: None,
            series: Series::new(0),
            stream: None,
            otlp: None,
            stream_due: None,
            otlp_due: None,
        }
    }

    pub(super) async fn next(&mut self) -> Scrape {
        match self.scrapes.recv().await {
            Some(scrape) => scrape,
            // It cannot end: we hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    /// When the next one is given out by itself.
    pub(super) fn due(&self) -> Option<Instant> {
        self.stream_due.into_iter().chain(self.otlp_due).min()
    }

    pub(super) fn stream_status(&self) -> Option<StreamStatus> {
        self.stream.as_ref().map(StreamWriter::status)
    }

    pub(super) fn otlp_status(&self) -> Option<OtlpStatus> {
        self.otlp.as_ref().map(OtlpSender::status)
    }

    /// Whether anybody asks for sums.
    fn counts(&self) -> bool {
        self.server.is_some() || self.otlp.is_some()
    }
}

impl Daemon {
    /// Begins what the configuration wants; what fails is said, and the rest goes on.
    pub(super) fn start_exports(&mut self, before: Option<&Config>) {
        let wanted = self.config.export.clone();
        let before = before.map(|before| &before.export);
        if before.is_none_or(|before| before.prometheus != wanted.prometheus) {
            self.start_server(&wanted.prometheus);
        }
        let now = Instant::now();
        if before.is_none_or(|before| before.stream != wanted.stream) {
            let stream = &wanted.stream;
            let started = stream.enabled.then(|| StreamWriter::start(stream));
            self.exports.stream = self.started("stream", started);
            self.exports.stream_due = self.exports.stream.is_some().then_some(now);
        }
        if before.is_none_or(|before| before.otlp != wanted.otlp) {
            let otlp = &wanted.otlp;
            let started = otlp.enabled.then(|| OtlpSender::start(&otlp.endpoint));
            self.exports.otlp = self.started("otlp", started);
            self.exports.otlp_due = self.exports.otlp.is_some().then_some(now);
        }
    }

    fn start_server(&mut self, wanted: &config::Prometheus) {
        // The port must be free before it is listened on again.
        self.exports.server = None;
        self.exports.series = Series::new(usize::try_from(wanted.top_pids).unwrap_or(usize::MAX));
        let to_us = self.exports.to_us.clone();
        let opened = wanted.enabled.then(|| Server::open(wanted.listen, to_us));
        self.exports.server = self.started("metrics", opened);
        if self.exports.server.is_some() {
            let text = format!("metrics are at http://{}/metrics", wanted.listen);
            self.journal
                .say(Priority::Notice, &text, &[("EVENT", "metrics")]);
        }
    }

    fn started<T>(&mut self, what: &'static str, started: Option<Result<T>>) -> Option<T> {
        let (started, failure) = match started? {
            Ok(started) => (Some(started), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.say_failure(what, failure);
        started
    }

    /// Gives out what is due.
    pub(super) fn export(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.exports.stream_due) {
            self.exports.stream_due = Some(now + self.config.export.stream.interval);
            self.push_digest();
        }
        if due(self.exports.otlp_due) {
            self.exports.otlp_due = Some(now + self.config.export.otlp.interval);
            self.push_otlp();
        }
    }

    fn push_digest(&mut self) {
        let Some(report) = self.counted_report() else {
            return;
        };
        let highest = self.machine.levels().map(|(_, tracker)| tracker.held());
        let level = highest.max().map(|level| level.name().to_owned());
        let Some(stream) = &self.exports.stream else {
            return;
        };
        let error = stream.status().error;
        stream.push(Digest::of(&report, level));
        let failure = error.map(|error| anyhow!("failed to append to the stream: {error}"));
        self.say_failure("stream", failure.map_or(Ok(()), Err));
    }

    fn push_otlp(&mut self) {
        let Some((report, families)) = self.families() else {
            return;
        };
        let Some(sender) = &self.exports.otlp else {
            return;
        };
        let clock = self.tracer.clock();
        let span = Span {
            started_unix_ns: clock.unix_ns(self.started_ns),
            now_unix_ns: clock.unix_ns(clock::boot_ns()),
        };
        let error = sender.status().error;
        sender.push(otlp(&families, &report, span));
        self.say_failure("otlp", error.map_or(Ok(()), |error| Err(anyhow!(error))));
    }

    pub(super) fn answer_scrape(&mut self, (wanted, to): Scrape) {
        let page = match wanted {
            Wanted::Health => Some("ok\n".to_owned()),
            Wanted::Metrics(exposition) => self.metrics(exposition),
            Wanted::Stack(id) => self.stack(&id),
        };
        // Whoever asked may be gone.
        let _ = to.send(page);
    }

    /// Counts what processes did before they are forgotten.
    pub(super) fn count_for_exports(&mut self) {
        if self.exports.counts() {
            let _ = self.counted_report();
        }
    }

    fn counted_report(&mut self) -> Option<Report> {
        let report = self.tracer.glance(EXPORTED, HOLDERS_AGE_MAX);
        let report = report.inspect(|report| {
            self.exports.series.take(report, clock::boot_ns());
        });
        match report {
            Ok(report) => {
                self.say_failure("report", Ok(()));
                Some(report)
            }
            Err(error) => {
                self.say_failure("report", Err(error));
                None
            }
        }
    }

    fn families(&mut self) -> Option<(Report, Vec<Family>)> {
        let report = self.counted_report()?;
        let mut families = self.exports.series.families(&report, clock::boot_ns());
        families.extend(metrics::families(&self.status()));
        Some((report, families))
    }

    fn metrics(&mut self, exposition: Exposition) -> Option<String> {
        let (_, families) = self.families()?;
        Some(exposition.page(&families))
    }

    fn stack(&mut self, id: &str) -> Option<String> {
        let report = self.counted_report()?;
        let page = serde_json::to_string_pretty(&StackPage::of(&report, id)?).ok()?;
        Some(page + "\n")
    }
}

/// A stack and who holds connections that were opened from it.
#[derive(Debug, Serialize)]
struct StackPage<'a> {
    stack: &'a str,
    #[serde(flatten)]
    details: &'a StackReport,
    openers: Vec<OpenerOf<'a>>,
}

#[derive(Debug, Serialize)]
struct OpenerOf<'a> {
    pid: Option<u32>,
    name: Option<&'a str>,
    unit: Option<&'a str>,
    container: Option<&'a str>,
    outstanding: u64,
}

impl<'a> StackPage<'a> {
    fn of(report: &'a Report, id: &'a str) -> Option<Self> {
        let stacks = report.openers.iter().flat_map(|opener| {
            let of_it = opener.stacks.iter().filter(|stack| {
                // A stack without frames has no ID of its own.
                !stack.frames.is_empty() && stack_id(&stack.frames) == id
            });
            of_it.map(move |stack| (opener, stack))
        });
        let stacks: Vec<_> = stacks.collect();
        let (_, details) = *stacks.first()?;
        let openers = stacks.iter().map(|(opener, stack)| OpenerOf {
            pid: opener.pid,
            name: opener.name.as_deref(),
            unit: opener.unit.as_deref(),
            container: opener.container.as_deref(),
            outstanding: stack.outstanding,
        });
        Some(Self {
            stack: id,
            details,
            openers: openers.collect(),
        })
    }
}
