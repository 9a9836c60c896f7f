//! Prometheus: a report as metrics, for a file that a collector reads and for a scrape.

use super::exposition::Exposition;
use super::series::Series;
use crate::report::Report;

/// The metrics of one report by itself, with series for the `top_pids` openers that have the most.
pub fn prometheus(report: &Report, exposition: Exposition, top_pids: usize) -> String {
    let mut series = Series::new(top_pids);
    series.take(report, 0);
    exposition.page(&series.families(report, 0))
}
