//! The table: a report for people, in a terminal or a mail.

use std::fmt::Write;

use anstyle::{AnsiColor, Style as Paint};

use super::{
    clean::clean,
    model::{OpenerReport, Report, SocketReport, StackReport, Trend},
};
use crate::accounting::Verdict;
use crate::clock::age;
use crate::stacks::{FoldedFrame, Frame, SiteRules};

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
/// Openers that closed everything are many on a busy host; the table shows the busiest.
const WITHOUT_SOCKETS_MAX: usize = 10;

/// Renders `report`.
pub fn table(report: &Report, rules: &SiteRules, style: Style) -> String {
    let mut page = Page {
        lines: Vec::new(),
        style,
    };
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
    let mut page = Page {
        lines: Vec::new(),
        style: Style {
            color: false,
            width: usize::MAX,
            sockets: false,
        },
    };
    page.facts(opener, own_netns, rules);
    let unindented = |line: String| line.strip_prefix(INDENT).unwrap_or(&line).to_owned();
    let lines = page.lines.into_iter();
    lines
        .map(|(paint, line)| (paint, unindented(line)))
        .collect()
}

struct Page {
    lines: Vec<(Paint, String)>,
    style: Style,
}

impl Page {
    fn line(&mut self, paint: Paint, line: &str) {
        self.lines.push((paint, cut(line, self.style.width)));
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (paint, line) in &self.lines {
            // Writing to a String cannot fail.
            let _ = if self.style.color && *paint != Paint::new() {
                writeln!(text, "{paint}{line}{paint:#}")
            } else {
                writeln!(text, "{line}")
            };
        }
        text
    }

    fn totals(&mut self, report: &Report) {
        let totals = &report.totals;
        let outstanding: u64 = report.openers.iter().map(|opener| opener.outstanding).sum();
        let ports: Vec<String> = report.ports.iter().map(|port| format!(":{port}")).collect();
        self.line(
            Paint::new().bold(),
            &format!(
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
            &format!(
                "ESTABLISHED {} (both ends {})   CLOSE_WAIT {}   unattributed {}   drift {}",
                totals.established_client_ends,
                totals.established_both_ends,
                totals.close_wait,
                totals.unattributed,
                totals.drift,
            ),
        );
    }

    fn openers(&mut self, report: &Report, rules: &SiteRules) {
        if report.openers.is_empty() {
            return;
        }
        self.line(Paint::new(), "");
        self.line(
            AnsiColor::Cyan.on_default(),
            &row([
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
            self.line(Paint::new().dimmed(), &headline(opener));
        }
        if hidden > 0 {
            let more = count(hidden, "more process", "more processes");
            self.line(
                Paint::new().dimmed(),
                &format!("{INDENT}and {more} with nothing outstanding"),
            );
        }
    }

    fn opener(&mut self, opener: &OpenerReport, own_netns: Option<u32>, rules: &SiteRules) {
        self.line(Paint::new().bold(), &headline(opener));
        self.facts(opener, own_netns, rules);
        if self.style.sockets {
            for socket in &opener.sockets {
                self.line(Paint::new(), &format!("{INDENT}{}", socket_line(socket)));
            }
        }
    }

    fn facts(&mut self, opener: &OpenerReport, own_netns: Option<u32>, rules: &SiteRules) {
        if !opener.cmdline.is_empty() {
            let command = clean(&opener.cmdline.join(" "));
            self.line(Paint::new().dimmed(), &format!("{INDENT}{command}"));
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
        self.line(Paint::new(), &format!("{INDENT}{}", facts.join("   ")));
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
            &format!("{INDENT}{}", clean(&format!("{words}{next}"))),
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
            &format!(
                "{INDENT}{} outstanding{age}{verdict}{from}{note}",
                stack.outstanding
            ),
        );
        for folded in rules.fold_for_table(&stack.frames) {
            match folded {
                FoldedFrame::Application(frame) => {
                    self.line(Paint::new(), &format!("{INDENT}    {}", frame_line(frame)));
                }
                FoldedFrame::Library {
                    count: 1,
                    innermost,
                } => self.line(
                    Paint::new().dimmed(),
                    &format!("{INDENT}    {}", frame_line(innermost)),
                ),
                FoldedFrame::Library { count, innermost } => self.line(
                    Paint::new().dimmed(),
                    &format!(
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
                &format!("{INDENT}    ({})", clean(note)),
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
                &format!("server ends held by {who}: {}", states.join("   ")),
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
            self.line(
                AnsiColor::Red.on_default(),
                &format!("lost: {count} {text}"),
            );
        }
    }
}

/// Red is what somebody must look at.
fn verdict_paint(verdict: Verdict) -> Paint {
    match verdict {
        Verdict::Leaking | Verdict::HeldAfterReset | Verdict::CloseWait => {
            AnsiColor::Red.on_default().bold()
        }
        Verdict::NeverUsed | Verdict::Churning | Verdict::Idle => AnsiColor::Yellow.on_default(),
        Verdict::SteadyPool | Verdict::Recovered => AnsiColor::Green.on_default(),
    }
}

fn connections(outstanding: u64) -> &'static str {
    if outstanding == 1 {
        "connection"
    } else {
        "connections"
    }
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn row(columns: [&str; 7]) -> String {
    let [pid, outstanding, opened, closed, oldest, user, name] = columns;
    format!(
        "{pid:>7}  {outstanding:>11}  {opened:>7}  {closed:>7}  {oldest:>8}  {user:<12}  {name}"
    )
}

fn headline(opener: &OpenerReport) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let name = match (&opener.name, opener.pid) {
        (Some(name), _) => clean(name),
        (None, Some(_)) => "?".to_owned(),
        (None, None) => "unattributed".to_owned(),
    };
    let ended = if opener.ended { " (ended)" } else { "" };
    row([
        &number(opener.pid.map(u64::from)),
        &opener.outstanding.to_string(),
        &number(opener.opened),
        &number(opener.closed),
        &opener.oldest_age_s.map_or_else(|| "-".to_owned(), age),
        &clean(opener.user.as_deref().unwrap_or("-")),
        &format!("{name}{ended}"),
    ])
}

/// One socket with its holders.
pub fn socket_line(socket: &SocketReport) -> String {
    let holders: Vec<String> = socket
        .holders
        .iter()
        .map(|holder| format!("{}/{}", holder.pid, holder.fd))
        .collect();
    let holders = if holders.is_empty() {
        "nobody".to_owned()
    } else {
        holders.join(" ")
    };
    let idle = socket
        .idle_s
        .map(|idle| format!("  idle {}", age(idle)))
        .unwrap_or_default();
    let queues = format!(
        "  rx {} tx {} bytes",
        socket.rx_queue_bytes.unwrap_or(0),
        socket.tx_queue_bytes.unwrap_or(0)
    );
    let opener = socket
        .opener
        .as_ref()
        .map(|opener| format!("  opened by {} ({})", clean(&opener.name), opener.pid))
        .unwrap_or_default();
    format!(
        "{:<11}  {} -> {}  held by {holders}{idle}{queues}{opener}",
        socket.state, socket.local, socket.remote
    )
}

/// `worker.rs:88 handle_order`, or what is known of the frame.
fn frame_line(frame: &Frame) -> String {
    let function = frame
        .function
        .as_deref()
        .map_or_else(|| "?".to_owned(), clean);
    let last = |path: &str| clean(path.rsplit('/').next().unwrap_or(path));
    let inlined = if frame.inlined { " (inlined)" } else { "" };
    match (&frame.file, frame.line, &frame.module) {
        (Some(file), Some(line), _) => format!("{}:{line} {function}{inlined}", last(file)),
        (Some(file), None, _) => format!("{} {function}{inlined}", last(file)),
        (None, _, Some(module)) => format!("{function} in {}", last(module)),
        (None, ..) => function,
    }
}

fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let mut cut: String = line.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn lines_are_cut_by_characters() {
        assert_eq!(cut("größer", 4), "grö…");
        assert_eq!(cut("kurz", 4), "kurz");
    }
}
