//! HTML: a report as one page that needs nothing but itself, for a browser, a mail, a ticket.
//!
//! No script and no network: its own policy forbids both, whatever a target has in its names.

mod chart;
mod flame;

use askama::Template;

use self::chart::Chart;
use self::flame::Flame;
use super::label;
use crate::accounting::Verdict;
use crate::report::{
    Report, clean,
    model::{OpenerReport, StackReport},
    timeline::ActionReport,
};

/// Openers that closed everything are many on a busy host; the page has the busiest.
const OPENERS_MAX: usize = 500;

/// # Errors
///
/// None in memory; the template's signature has one.
pub fn html(report: &Report) -> askama::Result<String> {
    let outstanding: u64 = report.openers.iter().map(|opener| opener.outstanding).sum();
    let most = report.openers.iter().map(|opener| opener.outstanding).max();
    let openers = report.openers.iter().take(OPENERS_MAX);
    let ports: Vec<String> = report.ports.iter().map(|port| format!(":{port}")).collect();
    let timeline = report.timeline.as_ref();
    let page = Page {
        ports: ports.join(" "),
        host: clean(&report.host),
        kernel: clean(&report.kernel),
        version: clean(&report.version),
        started_at: clean(&report.started_at),
        generated_at: clean(&report.generated_at),
        outstanding,
        processes: report
            .openers
            .iter()
            .filter(|opener| opener.outstanding > 0)
            .count(),
        totals: figures(report),
        chart: timeline.and_then(Chart::of),
        flame: Flame::of(report),
        openers: openers
            .map(|opener| Opener::of(opener, most.unwrap_or(0)))
            .collect(),
        hidden: report.openers.len().saturating_sub(OPENERS_MAX),
        actions: timeline
            .map(|timeline| timeline.actions.iter().rev().map(Action::of).collect())
            .unwrap_or_default(),
        has_timeline: timeline.is_some(),
        servers: report.servers.iter().map(server).collect(),
    };
    page.render()
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page {
    ports: String,
    host: String,
    kernel: String,
    version: String,
    started_at: String,
    generated_at: String,
    outstanding: u64,
    processes: usize,
    totals: Vec<Figure>,
    chart: Option<Chart>,
    flame: Flame,
    openers: Vec<Opener>,
    hidden: usize,
    /// The newest first.
    actions: Vec<Action>,
    has_timeline: bool,
    servers: Vec<String>,
}

/// A number with its name.
struct Figure {
    name: &'static str,
    value: u64,
    /// Not as it should be.
    bad: bool,
}

struct Opener {
    name: String,
    pid: String,
    unit: String,
    user: String,
    command: String,
    verdict: String,
    /// Sockets are held that nobody will use again.
    is_leak: bool,
    facts: String,
    outstanding: u64,
    opened: String,
    closed: String,
    peak: Option<u64>,
    oldest: String,
    states: String,
    /// Of the largest opener's, percent.
    share: f64,
    stacks: Vec<Stack>,
}

struct Stack {
    outstanding: u64,
    site: String,
    note: String,
    frames: Vec<String>,
}

struct Action {
    at: String,
    id: u64,
    action: String,
    unit: String,
    dry_run: bool,
    reason: String,
    outcome: String,
    verdict: String,
    evidence_file: String,
    openers: Vec<Opener>,
}

fn figures(report: &Report) -> Vec<Figure> {
    let totals = &report.totals;
    let lost = totals.lost;
    let figure = |name, value| Figure {
        name,
        value,
        bad: false,
    };
    let bad = |name, value| Figure {
        name,
        value,
        bad: value > 0,
    };
    vec![
        figure("ESTABLISHED", totals.established_client_ends),
        figure("both ends", totals.established_both_ends),
        bad("CLOSE_WAIT", totals.close_wait),
        bad("unattributed", totals.unattributed),
        bad("drift", totals.drift),
        bad(
            "lost",
            lost.ring_full + lost.map_full + lost.openers_full + lost.stack_full,
        ),
    ]
}

fn server(server: &crate::report::model::ServerReport) -> String {
    let name = server.name.as_deref().map(clean);
    let pid = server.pid.map(|pid| format!(" ({pid})"));
    format!(
        "{}{}: {} server ends",
        name.unwrap_or_else(|| "nobody known".to_owned()),
        pid.unwrap_or_default(),
        server.outstanding
    )
}

impl Opener {
    fn of(opener: &OpenerReport, most: u64) -> Self {
        let states: Vec<String> = opener
            .states
            .iter()
            .map(|(state, count)| format!("{} {count}", clean(state)))
            .collect();
        let ended = if opener.ended { " (ended)" } else { "" };
        Self {
            name: format!("{}{ended}", label::name(opener)),
            pid: text(opener.pid),
            unit: text(
                opener
                    .unit
                    .as_deref()
                    .or(opener.container.as_deref())
                    .map(clean),
            ),
            user: text(opener.user.as_deref().map(clean)),
            command: clean(&opener.cmdline.join(" ")),
            verdict: text(opener.trend.verdict),
            is_leak: opener.trend.verdict.is_some_and(Verdict::is_leak),
            facts: clean(&opener.trend.facts.join(", ")),
            outstanding: opener.outstanding,
            opened: text(opener.opened),
            closed: text(opener.closed),
            peak: opener.peak_outstanding,
            oldest: text(opener.oldest_age_s.map(age)),
            states: states.join(", "),
            share: percent(opener.outstanding, most),
            stacks: opener.stacks.iter().map(Stack::of).collect(),
        }
    }
}

impl Stack {
    fn of(stack: &StackReport) -> Self {
        let site = stack.site.as_ref().map(|site| {
            let function = site.function.as_deref().map(clean);
            let place = site.file.as_deref().map(label::file_name);
            let line = site.line.map(|line| format!(":{line}"));
            format!(
                "{} {}{}",
                function.unwrap_or_default(),
                place.unwrap_or_default(),
                line.unwrap_or_default()
            )
        });
        Self {
            outstanding: stack.outstanding,
            site: site.unwrap_or_else(|| label::without_frames(stack.note.as_deref())),
            note: text(stack.note.as_deref().map(clean)),
            frames: stack.frames.iter().map(label::frame).collect(),
        }
    }
}

impl Action {
    fn of(action: &ActionReport) -> Self {
        let most = action.openers.iter().map(|opener| opener.outstanding).max();
        Self {
            at: clean(&action.at),
            id: action.id,
            action: clean(&action.action),
            unit: clean(&action.unit),
            dry_run: action.dry_run,
            reason: clean(&action.reason),
            outcome: json(action.outcome.as_ref()),
            verdict: json(action.verdict.as_ref()),
            evidence_file: text(action.evidence_file.as_deref().map(clean)),
            openers: action
                .openers
                .iter()
                .map(|opener| Opener::of(opener, most.unwrap_or(0)))
                .collect(),
        }
    }
}

fn text(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// `{"outcome":"done"}` as `outcome: done`.
fn json(value: Option<&serde_json::Value>) -> String {
    let Some(object) = value.and_then(serde_json::Value::as_object) else {
        return String::new();
    };
    let fields: Vec<String> = object
        .iter()
        .map(|(name, value)| match value.as_str() {
            Some(text) => format!("{name}: {text}"),
            None => format!("{name}: {value}"),
        })
        .collect();
    clean(&fields.join(", "))
}

fn age(seconds: f64) -> String {
    let whole = std::time::Duration::from_secs_f64(seconds.clamp(0.0, 1e10).round());
    humantime::format_duration(whole).to_string()
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 * 100.0 / whole as f64
}
