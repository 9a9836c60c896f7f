//! The digest is what one host tells the fleet: its worst openers and their sites, in a few KB.
//!
//! Stable under `schema`; fields may be added. What is not known is null, never a made-up value.

use serde::{Deserialize, Serialize};

use super::stack_id::stack_id;
use crate::process::Pod;
use crate::report::model::{Lost, OpenerReport, Report, StackReport};

/// The version of this model.
pub(super) const SCHEMA: &str = "connleak.digest/1";
/// The worst of one host: a fleet's worst are among them.
const OPENERS_MAX: usize = 20;
const SITES_MAX: usize = 5;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Digest {
    /// [`SCHEMA`].
    pub schema: String,
    pub version: String,
    pub host: String,
    pub boot_id: String,
    /// Network namespace that the totals count: a host may have a daemon in several.
    pub netns: Option<u32>,
    pub kernel: String,
    pub started_at: String,
    pub generated_at: String,
    pub ports: Vec<u16>,
    /// The highest level of its ports.
    pub level: Option<String>,
    pub established_both_ends: u64,
    pub established_client_ends: u64,
    pub close_wait: u64,
    pub unattributed: u64,
    pub drift: u64,
    pub lost: Lost,
    /// Of all its openers, those that are not in `openers` included.
    pub outstanding: u64,
    pub openers_total: u64,
    /// The most outstanding first, some of them.
    pub openers: Vec<DigestOpener>,
    /// Which of the daemon's digests it is, from 0 since its [export.stream] began.
    pub number: Option<u64>,
    /// Digests before this one that never reached the stream: what `number` lacks.
    pub dropped: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DigestOpener {
    pub pid: Option<u32>,
    pub start_time: Option<String>,
    pub name: Option<String>,
    pub unit: Option<String>,
    pub container: Option<String>,
    pub pod: Option<Pod>,
    pub user: Option<String>,
    pub outstanding: u64,
    pub opened: Option<u64>,
    pub closed: Option<u64>,
    pub oldest_age_s: Option<f64>,
    /// A text: a host of another version may have another verdict.
    pub verdict: Option<String>,
    /// The most outstanding first, some of them.
    pub sites: Vec<DigestSite>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DigestSite {
    pub outstanding: u64,
    /// As in the metrics and at the daemon's /stacks; null without frames.
    pub stack: Option<String>,
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
    /// Why there is no stack, or why it ends early.
    pub note: Option<String>,
}

impl Digest {
    pub fn of(report: &Report, level: Option<String>) -> Self {
        let holding = || report.openers.iter().filter(|it| it.outstanding > 0);
        let totals = &report.totals;
        Self {
            schema: SCHEMA.to_owned(),
            version: report.version.clone(),
            host: report.host.clone(),
            boot_id: report.boot_id.clone(),
            netns: report.netns,
            kernel: report.kernel.clone(),
            started_at: report.started_at.clone(),
            generated_at: report.generated_at.clone(),
            ports: report.ports.clone(),
            level,
            established_both_ends: totals.established_both_ends,
            established_client_ends: totals.established_client_ends,
            close_wait: totals.close_wait,
            unattributed: totals.unattributed,
            drift: totals.drift,
            lost: totals.lost,
            outstanding: holding().map(|opener| opener.outstanding).sum(),
            openers_total: holding().count() as u64,
            openers: holding().take(OPENERS_MAX).map(opener).collect(),
            number: None,
            dropped: 0,
        }
    }
}

fn opener(of: &OpenerReport) -> DigestOpener {
    DigestOpener {
        pid: of.pid,
        start_time: of.start_time.clone(),
        name: of.name.clone(),
        unit: of.unit.clone(),
        container: of.container.clone(),
        pod: of.pod.clone(),
        user: of.user.clone(),
        outstanding: of.outstanding,
        opened: of.opened,
        closed: of.closed,
        oldest_age_s: of.oldest_age_s,
        verdict: verdict_name(of),
        sites: of.stacks.iter().take(SITES_MAX).map(site).collect(),
    }
}

fn site(of: &StackReport) -> DigestSite {
    let site = of.site.as_ref();
    DigestSite {
        outstanding: of.outstanding,
        stack: (!of.frames.is_empty()).then(|| stack_id(&of.frames)),
        function: site.and_then(|site| site.function.clone()),
        file: site.and_then(|site| site.file.clone()),
        line: site.and_then(|site| site.line),
        note: of.note.clone(),
    }
}

/// As a report's JSON spells it.
pub(super) fn verdict_name(opener: &OpenerReport) -> Option<String> {
    let value = serde_json::to_value(opener.trend.verdict?).ok()?;
    Some(value.as_str()?.to_owned())
}
