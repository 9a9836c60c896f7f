//! The status: whose numbers these are, how many connections there are, and how that changed.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::{Line, Span},
    widgets::{RenderDirection, Sparkline, SparklineBar},
};

use super::{
    super::{sample::Origin, view::View},
    Paint,
};
use crate::report::{clean, model::Report};

/// Of the number beside the bars.
const PEAK_COLUMNS: u16 = 11;

/// `connleak top  web-1  :6379  traced here  16:29:03 UTC`
pub(super) fn title(frame: &mut Frame<'_>, area: Rect, view: &View, paint: Paint) {
    let mut parts = vec![("connleak top".to_owned(), paint.bold())];
    if view.is_frozen() {
        parts.push(("FROZEN".to_owned(), paint.selected()));
    }
    match view.picture() {
        None => parts.push(("waiting for the first numbers".to_owned(), Style::new())),
        Some(picture) => {
            let sample = &picture.sample;
            let ports = sample.report.ports.iter().map(|port| format!(":{port}"));
            let origin = match sample.origin {
                Origin::Trace => "traced here".to_owned(),
                Origin::Daemon { pid } => format!("daemon {pid}"),
            };
            parts.push((ports.collect::<Vec<_>>().join(" "), Style::new()));
            parts.push((time_of(&sample.report), Style::new()));
            parts.push((origin, Style::new()));
            parts.push((clean(&sample.report.host), Style::new()));
        }
    }
    frame.render_widget(fitting(parts, area.width), area);
}

/// `2026-11-24T16:29:03.123Z` is `16:29:03 UTC` to whoever looks at it now.
fn time_of(report: &Report) -> String {
    let time = report.generated_at.get(11..19).unwrap_or_default();
    format!("{time} UTC")
}

/// The worst first; what does not fit is left out as a whole.
pub(super) fn numbers(frame: &mut Frame<'_>, area: Rect, view: &View, paint: Paint) {
    let Some(picture) = view.picture() else {
        return;
    };
    let sample = &picture.sample;
    let totals = &sample.report.totals;
    let lost = &totals.lost;
    let lost_events = lost.map_full + lost.openers_full + lost.ring_full;
    let lost_stacks = lost.stack_full + lost.stack_fault;
    let mut parts = vec![(
        format!("{} {}", sample.level, sample.count),
        paint.level(sample.level).patch(paint.bold()),
    )];
    if let Some(cause) = &sample.manual {
        parts.push((format!("MANUAL: {}", clean(cause)), paint.alarm()));
    }
    for (count, what) in [(lost_events, "events lost"), (lost_stacks, "stacks lost")] {
        if count > 0 {
            parts.push((format!("{count} {what}"), paint.alarm()));
        }
    }
    for (count, what) in [
        (totals.established_client_ends, "ESTABLISHED"),
        (totals.close_wait, "CLOSE_WAIT"),
        (totals.unattributed, "unattributed"),
        (totals.drift, "drift"),
        (totals.established_both_ends, "both ends"),
    ] {
        parts.push((format!("{what} {count}"), Style::new()));
    }
    frame.render_widget(fitting(parts, area.width), area);
}

/// One column a sample, the newest at the right.
pub(super) fn levels(frame: &mut Frame<'_>, area: Rect, view: &View, paint: Paint) {
    let Some(picture) = view.picture() else {
        return;
    };
    let [beside, bars] =
        Layout::horizontal([Constraint::Length(PEAK_COLUMNS), Constraint::Min(0)]).areas(area);
    let newest_first = picture.levels.iter().rev();
    let shown: Vec<_> = newest_first.take(usize::from(bars.width)).collect();
    let peak = shown.iter().map(|point| point.count).max().unwrap_or(0);
    frame.render_widget(Line::styled(format!("peak {peak}"), paint.dim()), beside);
    let heights = shown.iter().map(|point| {
        let bar = SparklineBar::from(u64::from(point.count));
        bar.style(paint.level(point.level))
    });
    let line = Sparkline::default()
        .data(heights)
        .max(u64::from(peak.max(1)))
        .bar_set(paint.bars())
        .direction(RenderDirection::RightToLeft);
    frame.render_widget(line, bars);
}

/// As many of the parts as fit whole, the first at any rate.
fn fitting(parts: Vec<(String, Style)>, width: u16) -> Line<'static> {
    let mut line = Line::default();
    for (text, style) in parts {
        let part = Span::styled(text, style);
        let apart = if line.spans.is_empty() { "" } else { "  " };
        let fits = line.width() + apart.len() + part.width() <= usize::from(width);
        if fits || line.spans.is_empty() {
            line.push_span(apart);
            line.push_span(part);
        }
    }
    line
}
