//! The JSON report, read strictly: an unknown or missing field fails the test.
//!
//! This is the contract of `connleak.report/1` seen from outside; it shares no type with connleak.

mod read;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    pub schema: String,
    pub version: String,
    pub kernel: String,
    pub host: String,
    pub boot_id: String,
    /// The namespace that the totals count.
    pub netns: Option<u64>,
    pub started_at: String,
    pub generated_at: String,
    pub ports: Vec<u16>,
    /// Hook row to the family that serves it.
    pub probes: BTreeMap<String, String>,
    pub totals: Totals,
    /// Owners of client ends.
    pub openers: Vec<Opener>,
    pub units: Vec<Unit>,
    pub sites: Vec<SiteTotals>,
    /// Owners of server ends.
    pub servers: Vec<Server>,
    /// Only of a report with history.
    #[serde(deserialize_with = "present")]
    pub timeline: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    pub established_both_ends: u64,
    pub established_client_ends: u64,
    pub close_wait: u64,
    pub unattributed: u64,
    /// Tracked minus real.
    pub drift: i64,
    pub drift_causes: BTreeMap<String, i64>,
    pub lost: BTreeMap<String, u64>,
    /// Absent in a snapshot: nothing is traced.
    pub events: Option<Events>,
    /// Connects counted by the kernel side, whatever became of their events.
    pub opened: Option<u64>,
    pub closed: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// Hook calls on any port.
    pub seen: u64,
    /// Hook calls that passed the port filter.
    pub matched: u64,
    /// Events that reached userspace.
    pub delivered: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opener {
    #[serde(deserialize_with = "present")]
    pub pid: Option<u32>,
    #[serde(deserialize_with = "present")]
    pub inner_pid: Option<u32>,
    #[serde(deserialize_with = "present")]
    pub start_time: Option<serde_json::Value>,
    #[serde(deserialize_with = "present")]
    pub name: Option<String>,
    pub cmdline: Vec<String>,
    #[serde(deserialize_with = "present")]
    pub unit: Option<String>,
    #[serde(deserialize_with = "present")]
    pub container: Option<String>,
    #[serde(deserialize_with = "present")]
    pub pod: Option<serde_json::Value>,
    #[serde(deserialize_with = "present")]
    pub user: Option<String>,
    #[serde(deserialize_with = "present")]
    pub netns: Option<serde_json::Value>,
    pub ended: bool,
    pub outstanding: u64,
    #[serde(deserialize_with = "present")]
    pub peak_outstanding: Option<u64>,
    /// Null in a snapshot.
    #[serde(deserialize_with = "present")]
    pub opened: Option<u64>,
    #[serde(deserialize_with = "present")]
    pub closed: Option<u64>,
    pub states: BTreeMap<String, u64>,
    #[serde(deserialize_with = "present")]
    pub oldest_age_s: Option<f64>,
    #[serde(deserialize_with = "present")]
    pub verdict: Option<String>,
    pub facts: Vec<String>,
    #[serde(deserialize_with = "present")]
    pub rates: Option<Rates>,
    #[serde(deserialize_with = "present")]
    pub next_level: Option<NextLevel>,
    pub stacks: Vec<StackGroup>,
    pub sockets: Vec<Socket>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    #[serde(deserialize_with = "present")]
    pub over_1_min: Option<Rate>,
    #[serde(deserialize_with = "present")]
    pub over_5_min: Option<Rate>,
    #[serde(deserialize_with = "present")]
    pub over_15_min: Option<Rate>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    pub opened_per_minute: f64,
    pub closed_per_minute: f64,
    pub net_per_minute: f64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextLevel {
    pub level: String,
    pub count: u32,
    pub in_s: f64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    pub unit: String,
    pub outstanding: u64,
    #[serde(deserialize_with = "present")]
    pub verdict: Option<String>,
    pub facts: Vec<String>,
    #[serde(deserialize_with = "present")]
    pub rates: Option<Rates>,
    #[serde(deserialize_with = "present")]
    pub next_level: Option<NextLevel>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteTotals {
    pub site: Site,
    pub outstanding: u64,
    #[serde(deserialize_with = "present")]
    pub verdict: Option<String>,
    pub facts: Vec<String>,
    #[serde(deserialize_with = "present")]
    pub rates: Option<Rates>,
    #[serde(deserialize_with = "present")]
    pub next_level: Option<NextLevel>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StackGroup {
    pub outstanding: u64,
    #[serde(deserialize_with = "present")]
    pub oldest_age_s: Option<f64>,
    #[serde(deserialize_with = "present")]
    pub youngest_age_s: Option<f64>,
    #[serde(deserialize_with = "present")]
    pub site: Option<Site>,
    #[serde(deserialize_with = "present")]
    pub verdict: Option<String>,
    pub frames: Vec<Frame>,
    #[serde(deserialize_with = "present")]
    pub note: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    #[serde(deserialize_with = "present")]
    pub function: Option<String>,
    #[serde(deserialize_with = "present")]
    pub file: Option<String>,
    #[serde(deserialize_with = "present")]
    pub line: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    #[serde(deserialize_with = "present")]
    pub function: Option<String>,
    #[serde(deserialize_with = "present")]
    pub file: Option<String>,
    #[serde(deserialize_with = "present")]
    pub line: Option<u32>,
    #[serde(deserialize_with = "present")]
    pub module: Option<String>,
    pub kind: FrameKind,
    pub inlined: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum FrameKind {
    Native,
    Python,
    Php,
    Ruby,
    Java,
    Go,
    Node,
    Jit,
    Kernel,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Socket {
    pub local: String,
    pub remote: String,
    pub state: String,
    #[serde(deserialize_with = "present")]
    pub opened_at: Option<String>,
    pub holders: Vec<Holder>,
    #[serde(deserialize_with = "present")]
    pub idle_s: Option<f64>,
    #[serde(deserialize_with = "present")]
    pub rx_queue_bytes: Option<u64>,
    #[serde(deserialize_with = "present")]
    pub tx_queue_bytes: Option<u64>,
    #[serde(deserialize_with = "present")]
    pub rx_bytes: Option<u64>,
    #[serde(deserialize_with = "present")]
    pub tx_bytes: Option<u64>,
    /// A line of CLIENT LIST, which the daemon alone asks for.
    #[serde(deserialize_with = "present")]
    pub redis: Option<RedisClient>,
    pub netns: u64,
    /// Who opened it, where the row is a holder's because the opener has exited.
    #[serde(deserialize_with = "present")]
    pub opener: Option<RememberedOpener>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisClient {
    pub id: u64,
    #[serde(deserialize_with = "present")]
    pub name: Option<String>,
    #[serde(deserialize_with = "present")]
    pub library: Option<String>,
    #[serde(deserialize_with = "present")]
    pub user: Option<String>,
    #[serde(deserialize_with = "present")]
    pub last_command: Option<String>,
    pub age_s: u64,
    pub idle_s: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RememberedOpener {
    pub pid: u32,
    pub name: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    #[serde(deserialize_with = "present")]
    pub pid: Option<u32>,
    #[serde(deserialize_with = "present")]
    pub name: Option<String>,
    #[serde(deserialize_with = "present")]
    pub unit: Option<String>,
    pub outstanding: u64,
    pub states: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    pub pid: u32,
    pub fd: i32,
}

/// What is not known is null, never left out: an absent `Option` is an error with this reader.
fn present<'de, D, T>(from: D) -> std::result::Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(from)
}
