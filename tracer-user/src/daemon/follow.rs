//! Following the policy: from what is counted to what is done, with the evidence on disk before it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::act::{Done, carry_out};
use super::journal::Priority;

use super::observe;
use super::probing::Probing;
use super::run::{Daemon, timestamp};
use super::words;
use crate::action::evidence::{self, Evidence, EvidenceError};
use crate::clock;
use crate::memory;
use crate::policy::decision::{Act, Decision, Subject};
use crate::policy::level::Level;

/// Who listens and who holds is looked up again for a CRITICAL count after this long.
const HOLDERS_FRESH_NS: u64 = 5_000_000_000;
/// The last stacks have this long to be named before the evidence goes without them.
const LAST_STACKS: Duration = Duration::from_secs(2);

impl Daemon {
    pub(super) fn judge(&mut self, now_ns: u64) -> Vec<Decision> {
        let mut seen = observe::look(&self.tracer, &self.config, now_ns);
        let stale = now_ns.saturating_sub(self.holders_at_ns) > HOLDERS_FRESH_NS;
        // Who holds and who listens matters where something may be done.
        let may_act = !self.config.unit.is_empty() && self.machine.manual().is_none();
        if stale && may_act && seen.is_critical(&self.config) {
            self.look_at_holders();
            seen = observe::look(&self.tracer, &self.config, now_ns);
        }
        let redis = Probing::view(&self.probing);
        let observation = seen.observation(&self.spared, redis);
        self.machine.observe(&observation, timestamp(now_ns))
    }

    /// Says what was decided, stores it, and only then acts.
    pub(super) async fn follow(&mut self, decisions: Vec<Decision>) {
        for decision in &decisions {
            words::say(&self.journal, decision);
            self.keep_decision(decision);
        }
        self.save();
        for decision in decisions {
            match decision {
                Decision::Act(act) => self.act(*act).await,
                other => self.complete(&other),
            }
        }
    }

    /// Stores the policy's state if it changed.
    pub(super) fn save(&mut self) {
        if !self.machine.take_dirty() {
            return;
        }
        let saved = self.store.save(&self.machine.state());
        self.say_failure("state", saved.map_err(anyhow::Error::from));
    }

    async fn act(&mut self, act: Act) {
        // The seconds before the crossing are the ones that matter.
        self.tracer.settle_stacks(LAST_STACKS).await;
        let clients = Probing::clients_now(&self.probing, &self.config.redis).await;
        let report = match self.tracer.report() {
            Ok(mut report) => {
                report.join(&clients.unwrap_or_default());
                serde_json::to_value(report).unwrap_or(Value::Null)
            }
            Err(error) => {
                let text = format!("failed to make the report for the evidence: {error:#}");
                self.journal.say(Priority::Error, &text, &[]);
                Value::Null
            }
        };
        let evidence = Evidence {
            schema: evidence::SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: self.tracer.host().name.clone(),
            boot_id: self.tracer.host().boot_id.clone(),
            decided_at: self.tracer.clock().rfc3339(clock::boot_ns()),
            act: act.clone(),
            report,
            outcome: None,
            record: None,
            verdict: None,
            completed_at: None,
        };
        let written = self.evidence.write(&evidence);
        self.keep_action(&act, &evidence.report, written.as_deref().ok());
        let path = match written {
            Ok(path) => path.display().to_string(),
            Err(error) => {
                self.journal.say(
                    Priority::Error,
                    &error.to_string(),
                    &[("EVENT", "evidence")],
                );
                self.unwritten.insert(act.id, evidence.clone());
                "not written".to_owned()
            }
        };
        let verb = if act.dry_run { "would be" } else { "is" };
        let text = format!(
            "action {}: {} of {} {verb} next: {}; evidence {path}",
            act.id, act.rung, act.unit, act.reason,
        );
        let fields = [
            ("EVENT", "action"),
            ("UNIT", act.unit.as_str()),
            ("ACTION", act.rung.name()),
            ("ACTION_ID", &*act.id.to_string()),
            ("DRY_RUN", if act.dry_run { "1" } else { "0" }),
            ("EVIDENCE", path.as_str()),
        ];
        self.journal.say(Priority::Critical, &text, &fields);
        if act.dry_run {
            return;
        }
        let port = match &act.facts.subject {
            Subject::Port(port) => Some(*port),
            Subject::Unit(_) => None,
        };
        let sockets = self.tracer.client_ends_of(&act.unit, port);
        let told = serde_json::to_vec(&evidence).unwrap_or_default();
        let config = Arc::clone(&self.config);
        let done = self.done.clone();
        tokio::spawn(async move {
            // The daemon ends before the action: then nobody is there to be told.
            let _ = done.send(carry_out(act, config, sockets, told).await);
        });
    }

    pub(super) async fn take_outcome(&mut self, done: Done) {
        words::say_outcome(&self.journal, done.id, &done.unit, &done.outcome);
        self.keep_outcome(done.id, &done.outcome);
        let now = timestamp(clock::boot_ns());
        let decisions = self.machine.outcome(done.id, done.outcome.clone(), now);
        self.amend(done.id, |evidence| {
            evidence.outcome = Some(done.outcome);
            evidence.record = done.record;
        });
        self.follow(decisions).await;
        self.observe().await;
    }

    /// Adds what became of an action to its evidence.
    pub(super) fn complete(&mut self, decision: &Decision) {
        if let Decision::Verified { id, verdict, .. } = decision {
            let completed_at = self.tracer.clock().rfc3339(clock::boot_ns());
            self.amend(*id, |evidence| {
                evidence.verdict = Some(verdict.clone());
                evidence.completed_at = Some(completed_at);
            });
        }
    }

    fn amend(&mut self, id: u64, change: impl FnOnce(&mut Evidence)) {
        let amended = match self.unwritten.remove(&id) {
            Some(mut evidence) => {
                change(&mut evidence);
                let written = self.evidence.write(&evidence).map(|_| ());
                if written.is_err() && evidence.verdict.is_none() {
                    self.unwritten.insert(id, evidence);
                }
                written
            }
            None => match self.evidence.find(id) {
                Some(path) => self.evidence.complete(&path, change),
                // Thinned out meanwhile, or of a state that was carried here without its evidence.
                None => Ok::<(), EvidenceError>(()),
            },
        };
        if let Err(error) = amended {
            self.journal.say(
                Priority::Error,
                &error.to_string(),
                &[("EVENT", "evidence")],
            );
        }
    }

    pub(super) fn look_at_holders(&mut self) {
        let looked = self.tracer.look_at_holders();
        self.holders_at_ns = clock::boot_ns();
        self.say_failure("holders", looked);
        self.spare_listeners();
    }

    /// A unit that listened once is spared even while it restarts.
    pub(super) fn spare_listeners(&mut self) {
        self.spared.extend(self.tracer.listening_units());
    }

    pub(super) fn reconcile(&mut self) {
        let reconciled = self.tracer.reconcile().map(|_| ());
        self.holders_at_ns = clock::boot_ns();
        self.count_for_exports();
        let reconciled = reconciled.and_then(|()| self.tracer.forget_ended());
        self.say_failure("reconcile", reconciled);
        self.spare_listeners();
        memory::give_back();
    }

    /// Once when it begins to fail; what works again may be said again.
    pub(super) fn say_failure(&mut self, what: &'static str, result: anyhow::Result<()>) {
        match result {
            Ok(()) => {
                self.said.remove(what);
            }
            Err(error) => {
                if self.said.insert(what) {
                    let text = format!("{error:#}");
                    self.journal
                        .say(Priority::Error, &text, &[("EVENT", "failure")]);
                }
            }
        }
    }

    /// Whether growth decides something soon, though no event may come.
    pub(super) fn is_busy(&self) -> bool {
        let critical = |level| level == Level::Critical;
        self.machine
            .levels()
            .any(|(_, tracker)| critical(tracker.raw()) || critical(tracker.held()))
            || self.machine.is_verifying()
    }
}
