//! NDJSON: a report as one JSON object a line, for `jq` and log pipelines.

use serde::Serialize;
use serde_json::Value;

use crate::report::{Report, json_line};

/// What a line is about comes first.
#[derive(Serialize)]
struct Line<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    row: &'a T,
}

/// A line of `"type": "report"` with all but the lists, then a line for each opener, unit,
/// site and server.
///
/// # Errors
///
/// A value that JSON cannot hold; there is none in a report.
pub fn ndjson(report: &Report) -> serde_json::Result<String> {
    let mut head = serde_json::to_value(Report {
        openers: Vec::new(),
        units: Vec::new(),
        sites: Vec::new(),
        servers: Vec::new(),
        ..report.clone()
    })?;
    if let Value::Object(head) = &mut head {
        for list in ["openers", "units", "sites", "servers"] {
            head.remove(list);
        }
    }
    let mut text = line("report", &head)?;
    for opener in &report.openers {
        text.push_str(&line("opener", opener)?);
    }
    for unit in &report.units {
        text.push_str(&line("unit", unit)?);
    }
    for site in &report.sites {
        text.push_str(&line("site", site)?);
    }
    for server in &report.servers {
        text.push_str(&line("server", server)?);
    }
    Ok(text)
}

fn line(kind: &'static str, row: &impl Serialize) -> serde_json::Result<String> {
    json_line(&Line { kind, row })
}
