//! Samples of a trace of our own.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::source::Told;
use crate::{
    cli::{args::TopArgs, trace},
    config::{Config, CountMode, Watch},
    kernel::Options,
    pipeline::{Judging, Tracer},
    policy::level::{Level, Thresholds},
    report::Listing,
    top::{Origin, Sample},
};

/// Who holds what may be so old: of 50,000 sockets looking costs tens of milliseconds.
const HOLDERS_AGE_MAX: Duration = Duration::from_secs(5);
const RECONCILE: Duration = Duration::from_secs(60);

pub(super) struct Traced {
    tracer: Tracer,
    watches: Vec<Watch>,
    wanted: Option<Listing>,
    reconcile: Interval,
    began: Instant,
}

impl Traced {
    /// # Errors
    ///
    /// Tracing cannot run here.
    pub(super) fn start(args: &TopArgs, config: &Config) -> Result<Self> {
        let watches = watches(&args.ports, config);
        let u32_of = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        let options = Options {
            ports: watches.iter().map(|watch| watch.port).collect(),
            family: args.hooks.probes.forced(),
            btf: args.hooks.btf.btf.clone(),
            stack_bytes: u32_of(config.limits.stack_bytes),
            max_sockets: config.limits.max_sockets,
            ring_bytes: u32_of(config.limits.ring_bytes),
            stacks_per_second: config.limits.stacks_per_second,
            follow_children: false,
        };
        let judging = Judging {
            watches: watches.clone(),
            ..Judging::from(config)
        };
        let tracer = Tracer::start(&options, judging)?;
        let mut reconcile = interval_at(tokio::time::Instant::now() + RECONCILE, RECONCILE);
        reconcile.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Ok(Self {
            tracer,
            watches,
            wanted: None,
            reconcile,
            began: Instant::now(),
        })
    }

    pub(super) fn announce(&self) {
        let ports: Vec<u16> = self.watches.iter().map(|watch| watch.port).collect();
        trace::announce(&ports, self.tracer.probes());
    }

    pub(super) fn look(&mut self, listing: Listing) {
        self.wanted = Some(listing);
    }

    pub(super) async fn next(&mut self) -> Result<Told> {
        if let Some(listing) = self.wanted.take() {
            return Ok(Told::Sample(Box::new(self.sample(listing)?)));
        }
        tokio::select! {
            step = self.tracer.step() => step?,
            _ = self.reconcile.tick() => {
                self.tracer.reconcile()?;
            }
        }
        // One event at a time: keys must not wait for a busy kernel to fall silent.
        Ok(Told::Nothing)
    }

    fn sample(&mut self, listing: Listing) -> Result<Sample> {
        let report = self.tracer.glance(listing, HOLDERS_AGE_MAX)?;
        let counts = self.tracer.counts();
        let count = |watch: &Watch| {
            let totals = counts.port(watch.port);
            match watch.count {
                CountMode::BothEnds => totals.both_ends(),
                CountMode::ClientEnds => totals.client_ends,
            }
        };
        let level = |watch: &Watch| thresholds(watch).level(count(watch));
        Ok(Sample {
            at: self.began.elapsed(),
            origin: Origin::Trace,
            report,
            listing,
            count: self.watches.iter().map(count).sum(),
            // Of now: nothing is done about it here, so it need not have lasted.
            level: self
                .watches
                .iter()
                .map(level)
                .max()
                .unwrap_or(Level::Healthy),
            manual: None,
        })
    }
}

/// The configured ports, or those of the command line with the levels they are configured to have.
fn watches(ports: &[u16], config: &Config) -> Vec<Watch> {
    let configured = &config.watch.0;
    if ports.is_empty() {
        return configured.clone();
    }
    let watch = |&port: &u16| {
        let known = configured.iter().find(|watch| watch.port == port);
        known.cloned().unwrap_or(Watch {
            port,
            ..Watch::default()
        })
    };
    ports.iter().map(watch).collect()
}

fn thresholds(watch: &Watch) -> Thresholds {
    Thresholds {
        warning: watch.warning,
        leak: watch.leak,
        critical: watch.critical,
    }
}
