//! CSV: one row for each opener and place it connected from, for spreadsheets.

use crate::accounting::Verdict;
use crate::report::{
    Report, clean,
    model::{OpenerReport, StackReport},
};

const COLUMNS: [&str; 20] = [
    "pid",
    "start_time",
    "name",
    "cmdline",
    "unit",
    "container",
    "user",
    "netns",
    "ended",
    "opened",
    "closed",
    "verdict",
    "facts",
    "outstanding",
    "oldest_age_s",
    "youngest_age_s",
    "function",
    "file",
    "line",
    "note",
];

/// Empty fields are what is not known, or, of an opener with nothing outstanding, not there.
///
/// # Errors
///
/// None in memory; the writer's signature has one.
pub fn csv(report: &Report) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS)?;
    for opener in &report.openers {
        if opener.stacks.is_empty() {
            writer.write_record(row(opener, None))?;
        }
        for stack in &opener.stacks {
            writer.write_record(row(opener, Some(stack)))?;
        }
    }
    let bytes = writer
        .into_inner()
        .map_err(|error| csv::Error::from(error.into_error()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn row(opener: &OpenerReport, stack: Option<&StackReport>) -> [String; 20] {
    let site = stack.and_then(|stack| stack.site.as_ref());
    let outstanding = stack.map_or(opener.outstanding, |stack| stack.outstanding);
    [
        number(opener.pid),
        text(opener.start_time.as_deref()),
        text(opener.name.as_deref()),
        text(Some(&opener.cmdline.join(" "))),
        text(opener.unit.as_deref()),
        text(opener.container.as_deref()),
        text(opener.user.as_deref()),
        number(opener.netns),
        opener.ended.to_string(),
        number(opener.opened),
        number(opener.closed),
        text(opener.trend.verdict.map(Verdict::name)),
        text(Some(&opener.trend.facts.join(", "))),
        outstanding.to_string(),
        number(stack.map_or(opener.oldest_age_s, |stack| stack.oldest_age_s)),
        number(stack.and_then(|stack| stack.youngest_age_s)),
        text(site.and_then(|site| site.function.as_deref())),
        text(site.and_then(|site| site.file.as_deref())),
        number(site.and_then(|site| site.line)),
        text(stack.and_then(|stack| stack.note.as_deref())),
    ]
}

fn number(number: Option<impl ToString>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

/// Cleaned; and what a spreadsheet would run as a formula is marked as text, as OWASP advises.
fn text(text: Option<&str>) -> String {
    let text = clean(text.unwrap_or_default());
    if text.starts_with(['=', '+', '-', '@']) {
        return format!("'{text}");
    }
    text
}
