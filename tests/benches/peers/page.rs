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
    let _ = writeln!(text, "| workload | figure | side | median | least | most |");
    let _ = writeln!(text, "|---|---|---|---|---|---|");
    for figure in figures.iter() {
        let (least, most) = figure.spread();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            figure.workload,
            figure.quantity.name(),
            figure.side,
            number(figure.median()),
            number(least),
            number(most)
        );
    }
    put_in_turn(&mut text, figures);
    let _ = writeln!(text, "\n| bound | measured | | |\n|---|---|---|---|");
    for bound in bounds {
        let limit = match (bound.at_least, bound.at_most) {
            (Some(least), _) => format!("at least {}", number(least)),
            (_, Some(most)) => format!("at most {}", number(most)),
            _ => String::new(),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {limit} | {} |",
            bound.says,
            number(bound.measured),
            if bound.holds() { "holds" } else { "MISSED" }
        );
    }
    text
}

fn put_in_turn(text: &mut String, figures: &Figures) {
    let ratios = in_turn(figures);
    if ratios.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "\n| of the same turn | median | middle half, from | to |\n|---|---|---|---|"
    );
    for ratio in ratios {
        let (from, to) = ratio.quartiles();
        let _ = writeln!(
            text,
            "| {}: {}, {} | {} | {} | {} |",
            ratio.workload,
            ratio.quantity.name(),
            ratio.side,
            number(ratio.median()),
            number(from),
            number(to)
        );
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
