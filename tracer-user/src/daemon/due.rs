//! Due: what nothing else wakes the daemon for, and when.

use std::time::Duration;

use tokio::time::Instant;

use super::run::{Daemon, timestamp};
use crate::clock;
use crate::config::Config;

/// While something is decided by time as well, the growth is looked at this often.
const BUSY_TICK: Duration = Duration::from_secs(1);

pub(super) struct Due {
    /// A burst that was not observed yet.
    pub(super) observe: Option<Instant>,
    heartbeat: Instant,
    sample: Option<Instant>,
    reconcile: Option<Instant>,
    alive: Option<Instant>,
}

impl Due {
    /// `alive`: how often systemd wants to hear of us.
    pub(super) fn new(config: &Config, has_history: bool, alive: Option<Duration>) -> Self {
        let now = Instant::now();
        Self {
            observe: None,
            heartbeat: now + config.daemon.heartbeat,
            // What is there at the start is the first sample.
            sample: has_history.then_some(now),
            reconcile: in_future(now, config.daemon.reconcile),
            alive: alive.map(|interval| now + interval),
        }
    }
}

impl Daemon {
    pub(super) fn next_due(&self) -> Instant {
        let now = Instant::now();
        let machine = self.machine.deadline().map(|at| {
            let left = at.since(timestamp(clock::boot_ns()));
            // A moment later rather than a moment too early, and then again.
            now + left + Duration::from_millis(1)
        });
        let busy = self.is_busy().then(|| self.observed_at + BUSY_TICK);
        [
            machine,
            busy,
            self.due.observe,
            self.due.sample,
            self.due.reconcile,
            self.due.alive,
            self.exports.due(),
        ]
        .into_iter()
        .flatten()
        .fold(self.due.heartbeat, Instant::min)
    }

    pub(super) async fn on_time(&mut self) {
        let now = Instant::now();
        if self.due.alive.is_some_and(|at| at <= now) {
            self.notify.alive();
            self.due.alive = self.notify.interval().map(|interval| now + interval);
        }
        if self.due.reconcile.is_some_and(|at| at <= now) {
            self.due.reconcile = in_future(now, self.config.daemon.reconcile);
            self.reconcile();
        }
        if self.due.sample.is_some_and(|at| at <= now) {
            self.due.sample = in_future(now, self.config.history.interval);
            self.keep_sample();
        }
        if self.due.heartbeat <= now {
            self.due.heartbeat = now + self.config.daemon.heartbeat;
            self.heartbeat();
        }
        self.export(now);
        self.observe().await;
    }

    pub(super) fn restart_timers(&mut self) {
        let now = Instant::now();
        self.due.heartbeat = now + self.config.daemon.heartbeat;
        self.due.reconcile = in_future(now, self.config.daemon.reconcile);
        self.due.sample = self.history.is_some().then_some(now);
    }
}

fn in_future(now: Instant, interval: Duration) -> Option<Instant> {
    (!interval.is_zero()).then(|| now + interval)
}
