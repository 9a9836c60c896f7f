//! The words for what was decided: one line and its fields.

use super::journal::{Journal, Priority};
use crate::kernel::Probes;
use crate::policy::decision::{Decision, Outcome, ResumedBy, Subject, Verdict};
use crate::policy::level::Level;
use crate::redis::health::{Answer, HealthChange};

/// Says a decision. An action is told by who carries it out, with its evidence.
pub(super) fn say(journal: &Journal, decision: &Decision) {
    match decision {
        Decision::Level {
            subject,
            from,
            to,
            count,
        } => {
            let priority = match to {
                Level::Healthy => Priority::Notice,
                Level::Warning | Level::Leak => Priority::Warning,
                Level::Critical => Priority::Critical,
            };
            journal.say(
                priority,
                &format!("{subject}: {from} -> {to} at {count} connections"),
                &[
                    ("EVENT", "level"),
                    ("SUBJECT", &subject.to_string()),
                    ("LEVEL", to.name()),
                    ("LEVEL_BEFORE", from.name()),
                    ("COUNT", &count.to_string()),
                ],
            );
        }
        Decision::Missing {
            subject,
            missing,
            count,
            expected_min,
        } => {
            let (priority, text) = match missing {
                true => (
                    Priority::Warning,
                    format!(
                        "{subject}: clients are missing, {count} connections where {expected_min} \
                         are expected"
                    ),
                ),
                false => (
                    Priority::Notice,
                    format!("{subject}: no clients are missing any more, {count} connections"),
                ),
            };
            let count = count.to_string();
            let subject = subject.to_string();
            let fields = [
                ("EVENT", "missing"),
                ("SUBJECT", subject.as_str()),
                ("COUNT", count.as_str()),
            ];
            journal.say(priority, &text, &fields);
        }
        Decision::Act(_) => {}
        Decision::Blocked { subject, cause } => {
            let text = format!("{subject}: no action: {cause}");
            let fields = [("EVENT", "blocked"), ("SUBJECT", &*subject.to_string())];
            journal.say(Priority::Warning, &text, &fields);
        }
        Decision::Verified {
            id,
            unit,
            rung,
            verdict,
        } => {
            let priority = match verdict.helped() {
                true => Priority::Notice,
                false => Priority::Error,
            };
            let text = format!("action {id}, {rung} of {unit}: {}", judged(verdict));
            let fields = [
                ("EVENT", "verified"),
                ("UNIT", unit.as_str()),
                ("ACTION", rung.name()),
                ("ACTION_ID", &*id.to_string()),
                ("HELPED", if verdict.helped() { "1" } else { "0" }),
            ];
            journal.say(priority, &text, &fields);
        }
        Decision::Retry {
            unit,
            attempt,
            error,
            ..
        } => {
            let text = format!("attempt {attempt} to act on {unit} failed, tried again: {error}");
            let fields = [("EVENT", "retry"), ("UNIT", unit.as_str())];
            journal.say(Priority::Error, &text, &fields);
        }
        Decision::EnterManual { cause } => {
            let text = format!(
                "MANUAL: {cause}; nothing more is done until `connleak ack` or a long healthy time"
            );
            journal.say(Priority::Critical, &text, &[("EVENT", "manual")]);
        }
        Decision::LeaveManual { by } => {
            let by = match by {
                ResumedBy::Ack => "a person acknowledged it",
                ResumedBy::HealthyTime => "it has been healthy for long",
            };
            let text = format!("MANUAL is over: {by}");
            journal.say(Priority::Notice, &text, &[("EVENT", "resumed")]);
        }
    }
}

fn judged(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Helped { count, .. } => format!("it helped, {count} connections"),
        Verdict::NotFallen { count, .. } => format!("the count has not fallen from {count}"),
        Verdict::GrowsAgain {
            count,
            growth_per_minute,
            ..
        } => format!("it grows again, {count} connections, {growth_per_minute:.1} a minute"),
        Verdict::Overtaken { by, count } => {
            format!("it did not help, now {by} grows, {count} connections")
        }
        Verdict::Down { error } => format!("the unit did not come back: {error}"),
        Verdict::NotBegun { error } => format!("it was not begun: {error}"),
        Verdict::Rebooted => "the machine was rebooted meanwhile".to_owned(),
    }
}

pub(super) fn say_outcome(journal: &Journal, id: u64, unit: &str, outcome: &Outcome) {
    let (priority, text) = match outcome {
        Outcome::Done => (Priority::Notice, "done".to_owned()),
        Outcome::NotBegun { error } => (Priority::Error, error.clone()),
        Outcome::Down { error } => (Priority::Critical, error.clone()),
        Outcome::Uncertain { error } => (Priority::Error, format!("outcome unknown: {error}")),
    };
    let text = format!("action {id} on {unit}: {text}");
    let fields = [
        ("EVENT", "outcome"),
        ("UNIT", unit),
        ("ACTION_ID", &*id.to_string()),
    ];
    journal.say(priority, &text, &fields);
}

pub(super) fn say_health(journal: &Journal, change: &HealthChange) {
    let (priority, cause) = match (&change.cause, change.to) {
        (_, Answer::Up) => (Priority::Notice, String::new()),
        (cause, _) => {
            let cause = cause.as_deref().unwrap_or("unknown");
            (Priority::Error, format!(": {cause}; tracing goes on"))
        }
    };
    let (from, to) = (change.from.name(), change.to.name());
    let text = format!("redis is {to}{cause}");
    let fields = [
        ("EVENT", "redis"),
        ("REDIS_STATE", to),
        ("REDIS_STATE_BEFORE", from),
    ];
    journal.say(priority, &text, &fields);
}

/// What the kernel refused, though it carries all hooks.
pub(super) fn say_refusals(journal: &Journal, probes: &Probes) {
    for refusal in probes.refusals() {
        journal.say(Priority::Warning, &refusal, &[("EVENT", "hooks")]);
    }
}

/// `port 6379 HEALTHY 25`
pub(super) fn standing<'a>(
    levels: impl Iterator<Item = (&'a Subject, Level, u32)>,
    manual: bool,
) -> String {
    let mut text = if manual { "MANUAL, " } else { "" }.to_owned();
    let parts: Vec<String> = levels
        .map(|(subject, level, count)| format!("{subject} {level} {count}"))
        .collect();
    text.push_str(&parts.join(", "));
    text
}
