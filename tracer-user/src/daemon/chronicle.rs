//! The chronicle: what the daemon has the history keep, and when.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::journal::{Journal, Priority};
use super::run::Daemon;
use crate::config::Config;
use crate::history::{Action, Entry, LevelChange, Notice, Sample, Settings, Writer};
use crate::policy::decision::{Act, Decision, Outcome};
use crate::report::{Listing, Whose};

/// The history keeps no sockets.
const STACKS_ONLY: Listing = Listing {
    whose: Whose::Everybody,
    sockets_max: 0,
};
/// The last reconcile has walked the open files: it need not be done again for a sample.
const HOLDERS_AGE_MAX: Duration = Duration::from_secs(90);

/// Starts the writer where the configuration wants a history.
pub(super) fn writer(config: &Config) -> std::io::Result<Option<Writer>> {
    if !config.history.enabled {
        return Ok(None);
    }
    let journal = Journal::open();
    let say = move |notice: &Notice| {
        let priority = match notice {
            Notice::Recovered { .. } => Priority::Notice,
            Notice::SetAside { .. } | Notice::Failed(_) => Priority::Error,
        };
        journal.say(priority, &notice.to_string(), &[("EVENT", "history")]);
    };
    Writer::start(settings(config), say).map(Some)
}

fn settings(config: &Config) -> Settings {
    Settings {
        file: config.history.file.clone(),
        retention: config.history.retention,
        max_bytes: config.history.max_bytes,
    }
}

impl Daemon {
    /// Keeps what is outstanding now.
    pub(super) fn keep_sample(&mut self) {
        if self.history.is_none() {
            return;
        }
        let sample = self
            .tracer
            .glance(STACKS_ONLY, HOLDERS_AGE_MAX)
            .map(|report| {
                let at_s = now_s();
                self.keep(Entry::Sample(Box::new(Sample { at_s, report })));
            });
        self.say_failure("sample", sample);
    }

    pub(super) fn keep_decision(&self, decision: &Decision) {
        match decision {
            Decision::Level {
                subject,
                from,
                to,
                count,
            } => self.keep(Entry::LevelChange(LevelChange {
                at_s: now_s(),
                subject: subject.to_string(),
                from: *from,
                to: *to,
                count: *count,
            })),
            Decision::Verified { id, verdict, .. } => self.keep(Entry::Verdict {
                id: *id,
                verdict: verdict.clone(),
            }),
            _ => {}
        }
    }

    /// `report`: the evidence's; its openers of the unit are kept.
    pub(super) fn keep_action(&self, act: &Act, report: &Value, evidence_file: Option<&Path>) {
        let openers = report["openers"].as_array().into_iter().flatten();
        let of_unit = openers.filter(|opener| opener["unit"] == act.unit.as_str());
        self.keep(Entry::Action(Box::new(Action {
            at_s: now_s(),
            act: act.clone(),
            evidence_file: evidence_file.map(Path::to_owned),
            openers: of_unit.cloned().collect(),
        })));
    }

    pub(super) fn keep_outcome(&self, id: u64, outcome: &Outcome) {
        self.keep(Entry::Outcome {
            id,
            outcome: outcome.clone(),
        });
    }

    fn keep(&self, entry: Entry) {
        if let Some(history) = &self.history {
            history.keep(entry);
        }
    }
}

/// The wall clock as it is now: the history outlives boots, and a person asks by it.
fn now_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or(Duration::ZERO).as_secs().cast_signed()
}
