//! The page that a person reads: a line a check, and below a failing one its remedy.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};

use super::{Diagnosis, Outcome};
use crate::report::clean;

pub(super) fn page(diagnosis: &Diagnosis, color: bool) -> String {
    let mut page = String::new();
    for check in &diagnosis.checks {
        let (word, paint) = match check.outcome {
            Outcome::Ok => ("ok", AnsiColor::Green.on_default()),
            Outcome::Note => ("note", AnsiColor::Cyan.on_default()),
            Outcome::Degraded => ("degraded", AnsiColor::Yellow.on_default()),
            Outcome::Failed => ("failed", AnsiColor::Red.on_default()),
        };
        let paint = if color { paint } else { Style::new() };
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "{paint}{word:<8}{paint:#}  {:<20}  {}",
            check.name,
            clean(&check.found)
        );
        if let Some(remedy) = &check.remedy {
            let _ = writeln!(page, "{:32}-> {}", "", clean(remedy));
        }
    }
    let verdict = match diagnosis.outcome {
        Outcome::Ok | Outcome::Note => "tracing can run here",
        Outcome::Degraded => "tracing can run here, degraded as said above",
        Outcome::Failed => "tracing cannot run here",
    };
    let _ = writeln!(page, "{verdict}");
    page
}
