//! The chart: counts over time as lines in a box of 1000 by 1000, stretched by the page.

use std::fmt::Write;

use jiff::Timestamp;

use crate::report::{clean, timeline::Timeline};

/// More points than a screen has columns show nothing more.
const POINTS_MAX: usize = 600;
const SIDE: f64 = 1000.0;

pub(super) struct Chart {
    pub(super) top: u64,
    pub(super) since: String,
    pub(super) until: String,
    pub(super) lines: Vec<Line>,
    pub(super) changes: Vec<Change>,
}

pub(super) struct Line {
    pub(super) class: &'static str,
    pub(super) name: &'static str,
    /// Of an SVG polyline.
    pub(super) points: String,
}

/// A change of level, as a mark at its time.
pub(super) struct Change {
    pub(super) x: f64,
    pub(super) class: String,
    pub(super) text: String,
}

impl Chart {
    /// None where the window has no samples.
    pub(super) fn of(timeline: &Timeline) -> Option<Self> {
        let at = |text: &str| text.parse::<Timestamp>().ok().map(|at| at.as_second());
        let times: Vec<i64> = timeline
            .samples
            .iter()
            .filter_map(|sample| at(&sample.at))
            .collect();
        let (first, last) = (*times.first()?, *times.last()?);
        let span = (last - first).max(1) as f64;
        let x = |at: i64| ((at - first) as f64 / span * SIDE).clamp(0.0, SIDE);
        let both: Vec<u64> = timeline
            .samples
            .iter()
            .map(|sample| sample.established_both_ends)
            .collect();
        let outstanding: Vec<u64> = timeline
            .samples
            .iter()
            .map(|sample| sample.outstanding)
            .collect();
        let top = both.iter().chain(&outstanding).copied().max()?.max(1);
        let line = |class, name, counts: &[u64]| Line {
            class,
            name,
            points: points(&times, counts, x, top),
        };
        Some(Self {
            top,
            since: clean(&timeline.samples.first()?.at),
            until: clean(&timeline.samples.last()?.at),
            lines: vec![
                line("both", "ESTABLISHED, both ends", &both),
                line("outstanding", "outstanding, opened here", &outstanding),
            ],
            changes: timeline
                .level_changes
                .iter()
                .filter_map(|change| {
                    Some(Change {
                        x: x(at(&change.at)?),
                        class: clean(&change.to).to_lowercase(),
                        text: clean(&format!(
                            "{} {}: {} to {} at {} connections",
                            change.at, change.subject, change.from, change.to, change.count
                        )),
                    })
                })
                .collect(),
        })
    }
}

/// The highest of each column: a short peak must not vanish between two points.
fn points(times: &[i64], counts: &[u64], x: impl Fn(i64) -> f64, top: u64) -> String {
    let each = times.len().div_ceil(POINTS_MAX).max(1);
    let mut points = String::new();
    for (times, counts) in times.chunks(each).zip(counts.chunks(each)) {
        let (Some(&at), Some(&count)) = (times.first(), counts.iter().max()) else {
            continue;
        };
        let y = SIDE - count as f64 / top as f64 * SIDE;
        // Writing to a String cannot fail.
        let _ = write!(points, "{:.0},{y:.0} ", x(at));
    }
    points
}
