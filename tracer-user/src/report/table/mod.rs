//! The table: a report for people, in a terminal or a mail.

mod line;

use anstyle::{AnsiColor, Style as Paint};

pub use self::line::socket_line;
use self::line::{connections, count, cut, frame_line, headline, row, verdict_paint};
use super::clean::clean;
use super::model::{OpenerReport, Report, SocketReport, StackReport, Trend};
use crate::clock::age;
use crate::stacks::{FoldedFrame, SiteRules};

/// How the table may look.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    pub color: bool,
    /// Longer lines are cut.
    pub width: usize,
    /// One line a socket, below its opener.
    pub sockets: bool,
}

const INDENT: &str = "        ";
/// Their lines are 30 KB.
const SOCKETS_AT_ONCE: usize = 256;
/// Openers that closed everything are many on a busy host; the table shows the busiest.
const WITHOUT_SOCKETS_MAX: usize = 10;

/// Renders `report`.
pub fn table(report: &Report, rules: &SiteRules, style: Style) -> String {
    table_pieces(report, rules, style).collect()
}

/// As [`table`], some whole lines at a time: of 100,000 sockets it is 10 MB.
pub fn table_pieces<'a>(
    report: &'a Report,
    rules: &SiteRules,
    style: Style,
) -> impl Iterator<Item = String> + use<'a> {
    let mut page = Page::new(style);
    page.totals(report);
    page.openers(report, rules);
    page.servers(report);
    page.losses(report);
    page.text()
}

/// What the table says of one opener below its row, line by line and without indentation.
pub fn opener_lines(
    opener: &OpenerReport,
    own_netns: Option<u32>,
    rules: &SiteRules,
) -> Vec<(Paint, String)> {
    let mut page = Page::new(Style {
        color: false,
        width: usize::MAX,
        sockets: false,
    });
    page.facts(opener, own_netns, rules);
    let unindented = |line: String| line.strip_prefix(INDENT).unwrap_or(&line).to_owned();
    let lines = page.lines.into_iter();
    lines
        .map(|line| (line.paint, unindented(line.text)))
        .collect()
}

struct Page<'a> {
    lines: Vec<PageLine<'a>>,
    style: Style,
}

/// A line, and the sockets that are listed below it.
struct PageLine<'a> {
    paint: Paint,
    text: String,
    sockets: &'a [SocketReport],
}

impl PageLine<'_> {
    fn painted(&self, color: bool) -> String {
        let Self { paint, text, .. } = self;
        if color && *paint != Paint::new() {
            format!("{paint}{text}{paint:#}\n")
        } else {
            format!("{text}\n")
        }
    }
}

impl<'a> Page<'a> {
    fn new(style: Style) -> Self {
        Self {
            lines: Vec::new(),
            style,
        }
    }

    fn line(&mut self, paint: Paint, line: impl Into<String>) {
        self.lines.push(PageLine {
            paint,
            text: cut(line.into(), self.style.width),
            sockets: &[],
        });
    }

    /// Lists them below the line before.
    fn sockets(&mut self, sockets: &'a [SocketReport]) {
        if let Some(line) = self.lines.last_mut() {
            line.sockets = sockets;
        }
    }

    /// Some whole lines at a time.
    fn text(self) -> impl Iterator<Item = String> + use<'a> {
        let Style { color, width, .. } = self.style;
        self.lines.into_iter().flat_map(move |line| {
            let sockets = line.sockets.chunks(SOCKETS_AT_ONCE);
            let listed = sockets.map(move |sockets| line::sockets(sockets, INDENT, width));
            std::iter::once(line.painted(color)).chain(listed)
        })
    }

    fn totals(&mut self, report: &Report) {
        let totals = &report.totals;
        let outstanding: u64 = report.openers.iter().map(|opener| opener.outstanding).sum();
        let ports: Vec<String> = report.ports.iter().map(|port| format!(":{port}")).collect();
        self.line(
            Paint::new().bold(),
            format!(
                "{outstanding} {} to {} outstanding, from {}",
                connections(outstanding),
                ports.join(" "),
                count(
                    report
                        .openers
                        .iter()
                        .filter(|opener| opener.outstanding > 0)
                        .count(),
                    "process",
                    "processes"
                ),
            ),
        );
        self.line(
            Paint::new(),
            format!(
                "ESTABLISHED {} (both ends {})   CLOSE_WAIT {}   unattributed {}   drift {}",
                totals.established_client_ends,
                totals.established_both_ends,
                totals.close_wait,
                totals.unattributed,
                totals.drift,
            ),
        );
    }

    fn openers(&mut self, report: &'a Report, rules: &SiteRules) {
        if report.openers.is_empty() {
            return;
        }
        self.line(Paint::new(), "");
        self.line(
            AnsiColor::Cyan.on_default(),
            row([
                "PID",
                "OUTSTANDING",
                "OPENED",
                "CLOSED",
                "OLDEST",
                "USER",
                "NAME",
            ]),
        );
        let (with, without): (Vec<_>, Vec<_>) = report
            .openers
            .iter()
            .partition(|opener| opener.outstanding > 0);
        for opener in with {
            self.opener(opener, report.netns, rules);
        }
        let hidden = without.len().saturating_sub(WITHOUT_SOCKETS_MAX);
        for opener in without.into_iter().take(WITHOUT_SOCKETS_MAX) {
            self.line(Paint::new().dimmed(), headline(opener));
        }
        if hidden > 0 {
            let more = count(hidden, "more process", "more processes");
            self.line(
                Paint::new().dimmed(),
                format!("{INDENT}and {more} with nothing outstanding"),
            );
        }
    }

    fn opener(&mut self, opener: &'a OpenerReport, own_netns: Option<u32>, rules: &SiteRules) {
        self.line(Paint::new().bold(), headline(opener));
        self.facts(opener, own_netns, rules);
        if self.style.sockets {
            self.sockets(&opener.sockets);
        }
    }

    fn facts(&mut self, opener: &OpenerReport, own_netns: Option<u32>, rules: &SiteRules) {
        if !opener.cmdline.is_empty() {
            let command = clean(&opener.cmdline.join(" "));
            self.line(Paint::new().dimmed(), format!("{INDENT}{command}"));
        }
        let mut facts: Vec<String> = opener
            .states
            .iter()
            .map(|(state, count)| format!("{state} {count}"))
            .collect();
        if let Some(unit) = &opener.unit {
            facts.push(format!("unit {}", clean(unit)));
        }
        if let Some(pod) = &opener.pod {
            let known = pod.namespace.as_ref().zip(pod.name.as_ref());
            let name = known.map_or_else(
                || clean(&pod.uid),
                |(namespace, name)| clean(&format!("{namespace}/{name}")),
            );
            facts.push(format!("pod {name}"));
        }
        if let Some(container) = &opener.container {
            facts.push(format!(
                "container {}",
                clean(&container[..container.len().min(12)])
            ));
        }
        if let Some(inner_pid) = opener.inner_pid {
            facts.push(format!("PID {inner_pid} inside"));
        }
        if let Some(peak) = opener.peak_outstanding {
            facts.push(format!("at most {peak}"));
        }
        let mut foreign: Vec<u32> = opener.sockets.iter().map(|socket| socket.netns).collect();
        foreign.sort_unstable();
        foreign.dedup();
        foreign.retain(|&netns| Some(netns) != own_netns);
        facts.extend(
            foreign
                .iter()
                .map(|netns| format!("in network namespace {netns}")),
        );
        self.line(Paint::new(), format!("{INDENT}{}", facts.join("   ")));
        self.trend(&opener.trend);
        for stack in &opener.stacks {
            self.stack(stack, rules);
        }
    }

    /// `verdict leaking: +12.0/min over 5 min, none of 38 older than 5 min was closed or used`
    fn trend(&mut self, trend: &Trend) {
        let facts = trend.facts.join(", ");
        let next = trend.next_level.map_or_else(String::new, |next| {
            format!("; {} ({}) in {}", next.level, next.count, age(next.in_s))
        });
        let (paint, words) = match trend.verdict {
            Some(verdict) => (
                verdict_paint(verdict),
                format!("verdict {verdict}: {facts}"),
            ),
            None if facts.is_empty() => return,
            None => (Paint::new().dimmed(), format!("no verdict: {facts}")),
        };
        self.line(
            paint,
            format!("{INDENT}{}", clean(&format!("{words}{next}"))),
        );
    }

    fn stack(&mut self, stack: &StackReport, rules: &SiteRules) {
        let age = match (stack.youngest_age_s, stack.oldest_age_s) {
            (Some(young), Some(old)) if age(young) == age(old) => format!(", {} old", age(old)),
            (Some(young), Some(old)) => format!(", {} to {} old", age(young), age(old)),
            _ => String::new(),
        };
        let from = if stack.frames.is_empty() {
            ""
        } else {
            ", from:"
        };
        let note = match &stack.note {
            Some(note) if stack.frames.is_empty() => format!(": {}", clean(note)),
            _ => String::new(),
        };
        let verdict = match stack.verdict {
            Some(verdict) => format!(", {verdict}"),
            None => String::new(),
        };
        self.line(
            AnsiColor::Yellow.on_default(),
            format!(
                "{INDENT}{} outstanding{age}{verdict}{from}{note}",
                stack.outstanding
            ),
        );
        for folded in rules.fold_for_table(&stack.frames) {
            match folded {
                FoldedFrame::Application(frame) => {
                    self.line(Paint::new(), format!("{INDENT}    {}", frame_line(frame)));
                }
                FoldedFrame::Library {
                    count: 1,
                    innermost,
                } => self.line(
                    Paint::new().dimmed(),
                    format!("{INDENT}    {}", frame_line(innermost)),
                ),
                FoldedFrame::Library { count, innermost } => self.line(
                    Paint::new().dimmed(),
                    format!(
                        "{INDENT}    {count} library frames, innermost {}",
                        frame_line(innermost)
                    ),
                ),
            }
        }
        if let Some(note) = &stack.note
            && !stack.frames.is_empty()
        {
            self.line(
                Paint::new().dimmed(),
                format!("{INDENT}    ({})", clean(note)),
            );
        }
    }

    fn servers(&mut self, report: &Report) {
        if report.servers.is_empty() {
            return;
        }
        self.line(Paint::new(), "");
        for server in &report.servers {
            let who = match (&server.name, server.pid) {
                (Some(name), Some(pid)) => format!("{} ({pid})", clean(name)),
                (None, Some(pid)) => format!("process {pid}"),
                _ => "nobody known".to_owned(),
            };
            let states: Vec<String> = server
                .states
                .iter()
                .map(|(state, count)| format!("{state} {count}"))
                .collect();
            self.line(
                Paint::new().dimmed(),
                format!("server ends held by {who}: {}", states.join("   ")),
            );
        }
    }

    fn losses(&mut self, report: &Report) {
        let lost = report.totals.lost;
        let lines = [
            (
                lost.ring_full,
                "notices late: the event ring was full (--ring-bytes)",
            ),
            (
                lost.map_full,
                "sockets not tracked: the socket map was full (--max-sockets)",
            ),
            (
                lost.openers_full,
                "processes not tallied: the opener map was full",
            ),
            (
                lost.stack_full,
                "stacks lost: the event ring was full (--ring-bytes)",
            ),
            (
                lost.stack_spared,
                "stacks not taken: more connects a second than --stacks-per-second",
            ),
            (lost.stack_fault, "stacks unreadable"),
            (
                lost.program_busy,
                "runs left out: a program was busy on that processor",
            ),
        ];
        for (count, text) in lines.into_iter().filter(|(count, _)| *count > 0) {
            self.line(AnsiColor::Red.on_default(), format!("lost: {count} {text}"));
        }
    }
}
