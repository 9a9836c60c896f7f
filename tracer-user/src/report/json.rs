//! JSON: a report for programs, one object, one line's end.

use super::Report;

/// # Errors
///
/// A value that JSON cannot hold; there is none in a report.
pub fn json(report: &Report) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    Ok(text)
}
