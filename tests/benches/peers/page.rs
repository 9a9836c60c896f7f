//! The page: all figures and what they say of the bounds, for people and for programs.

use std::fmt::Write;

use anyhow::Result;
use serde_json::json;

use crate::bounds::Bound;
use crate::figures::{Figure, Figures};
use crate::machine::Machine;

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

pub(crate) fn json(machine: &Machine, figures: &Figures, bounds: &[Bound]) -> Result<String> {
    let figures: Vec<&Figure> = figures.iter().collect();
    let page = json!({ "machine": machine, "figures": figures, "bounds": bounds });
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
