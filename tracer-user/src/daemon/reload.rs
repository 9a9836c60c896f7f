//! A reload takes over a changed configuration, or keeps the old one if the new one is bad.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::chronicle;
use super::journal::Priority;
use super::probing::Probing;
use super::run::{Daemon, evidence_store};
use super::store::Store;
use super::usage;
use super::words;
use crate::config::Config;
use crate::pipeline::{Judging, Tracer};
use crate::policy::rules::Rules;

impl Daemon {
    pub(super) async fn reload(&mut self) {
        self.notify.reloading();
        let (priority, text) = match self.take_over() {
            Ok(text) => (Priority::Notice, text),
            Err(error) => (
                Priority::Error,
                format!("the new configuration is bad, the old one is kept: {error:#}"),
            ),
        };
        self.journal.say(priority, &text, &[("EVENT", "reload")]);
        self.notify.ready(&text);
        self.observe().await;
    }

    /// Everything that can fail comes before the first change.
    fn take_over(&mut self) -> Result<String> {
        let new = self.options.config()?;
        let old = Arc::clone(&self.config);
        let tracing = self.options.tracing(&new) != self.options.tracing(&old);
        let tracer = tracing
            .then(|| Tracer::start(&self.options.tracing(&new), Judging::from(&new)))
            .transpose()
            .context("failed to trace as it says")?;
        if new.redis != old.redis || new.probe != old.probe {
            self.probing = Probing::start(&new).context("failed to probe redis as it says")?;
        }
        if new.history != old.history {
            // The old one ends first, what waits written: both may name the same file.
            self.history = None;
            self.history =
                chronicle::writer(&new).context("failed to keep a history as it says")?;
        }
        if let Some(tracer) = tracer {
            self.tracer = tracer;
            words::say_refusals(&self.journal, self.tracer.probes());
        }
        self.tracer.judge_by(Judging::from(&new));
        usage::allow(&self.tracer, &new.limits);
        self.machine.reload(Rules::from(&new));
        self.evidence = evidence_store(&new);
        if new.daemon.state_dir != old.daemon.state_dir {
            self.store = Store::new(&new.daemon.state_dir);
            self.stored_elsewhere();
        }
        let later = later(&old, &new);
        self.config = Arc::new(new);
        self.restart_timers();
        self.start_exports(Some(&old));
        self.spare_listeners();
        Ok(format!("the configuration was reloaded{later}"))
    }

    fn stored_elsewhere(&mut self) {
        let saved = self.store.save(&self.machine.state());
        self.say_failure("state", saved.map_err(anyhow::Error::from));
    }
}

fn later(old: &Config, new: &Config) -> &'static str {
    let same = old.daemon.socket == new.daemon.socket && old.daemon.group == new.daemon.group;
    match same {
        true => "",
        false => "; socket and group change when the daemon is restarted",
    }
}
