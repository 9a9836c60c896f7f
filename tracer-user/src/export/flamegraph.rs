//! The flame graph of what is outstanding, as one interactive SVG.

use super::folded::folded;
use crate::report::Report;

#[derive(Debug, thiserror::Error)]
pub enum FlamegraphError {
    #[error("nothing is outstanding; there is nothing to draw")]
    Empty,
    #[error("failed to draw the flame graph: {0}")]
    Draw(#[from] std::io::Error),
}

/// # Errors
///
/// Nothing is outstanding.
pub fn flamegraph(report: &Report) -> Result<Vec<u8>, FlamegraphError> {
    let folded = folded(report);
    if folded.is_empty() {
        return Err(FlamegraphError::Empty);
    }
    let ports: Vec<String> = report.ports.iter().map(|port| format!(":{port}")).collect();
    let mut options = inferno::flamegraph::Options::default();
    options.title = format!("connections to {} outstanding", ports.join(" "));
    options.subtitle = Some(report.generated_at.clone());
    options.count_name = "connections".to_owned();
    options.name_type = "Frame:".to_owned();
    // The same report gives the same picture.
    options.hash = true;
    let mut svg = Vec::new();
    inferno::flamegraph::from_lines(&mut options, folded.lines(), &mut svg)?;
    Ok(svg)
}
