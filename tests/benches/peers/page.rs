//! The page: all figures and what they say of the bounds, for people and for programs.

use std::fmt::Write;

use anyhow::Result;
use serde_json::json;

use crate::bounds::Bound;
use crate::figures::{Figure, Figures, Quantity};
use crate::machine::Machine;
use crate::side::{CONNLEAK, NOBODY};

pub(crate) fn table(machine: &Machine, figures: &Figures, bounds: &[Bound]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "Linux {}, {} CPUs, {:.0} % idle before the run\n",
        machine.kernel,
        machine.cpus,
        machine.idle * 100.0
    );
    let rows = figures.iter().map(|figure| {
        let (least, most) = figure.spread();
        [
            figure.workload.to_owned(),
            figure.quantity.name().to_owned(),
            figure.side.clone(),
            number(figure.median()),
            number(least),
            number(most),
        ]
    });
    let titles = ["workload", "figure", "side", "median", "least", "most"];
    put_rows(&mut text, titles, rows);
    let ratios = in_turn(figures);
    if !ratios.is_empty() {
        let rows = ratios.iter().map(|ratio| {
            let (from, to) = ratio.quartiles();
            [
                format!(
                    "{}: {}, {}",
                    ratio.workload,
                    ratio.quantity.name(),
                    ratio.side
                ),
                number(ratio.median()),
                number(from),
                number(to),
            ]
        });
        let titles = ["of the same turn", "median", "middle half, from", "to"];
        text.push('\n');
        put_rows(&mut text, titles, rows);
    }
    let rows = bounds.iter().map(|bound| {
        let limit = match (bound.at_least, bound.at_most) {
            (Some(least), _) => format!("at least {}", number(least)),
            (_, Some(most)) => format!("at most {}", number(most)),
            _ => String::new(),
        };
        let holds = if bound.holds() { "holds" } else { "MISSED" };
        [
            bound.says.clone(),
            number(bound.measured),
            limit,
            holds.to_owned(),
        ]
    });
    text.push('\n');
    put_rows(&mut text, ["bound", "measured", "", ""], rows);
    text
}

/// A table in Markdown.
fn put_rows<const COLUMNS: usize>(
    text: &mut String,
    titles: [&str; COLUMNS],
    rows: impl Iterator<Item = [String; COLUMNS]>,
) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "| {} |", titles.join(" | "));
    let _ = writeln!(text, "|{}", "---|".repeat(COLUMNS));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
}

/// Speeds, turn by turn: what the machine does meanwhile meets both sides.
fn in_turn(figures: &Figures) -> Vec<Figure> {
    let of = |workload| figures.in_turn(workload, CONNLEAK, NOBODY, Quantity::Requests);
    ["churn", "traffic"].into_iter().filter_map(of).collect()
}

pub(crate) fn json(machine: &Machine, figures: &Figures, bounds: &[Bound]) -> Result<String> {
    let (in_turn, figures) = (in_turn(figures), figures.iter().collect::<Vec<&Figure>>());
    let page = json!({
        "machine": machine,
        "figures": figures,
        "in_turn": in_turn,
        "bounds": bounds,
    });
    Ok(serde_json::to_string_pretty(&page)?)
}

/// Three digits that say something.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
