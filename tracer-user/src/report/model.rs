//! The report's model: the JSON that programs read, field by field.
//!
//! Stable under `schema`; fields may be added. Times are RFC 3339 in UTC, ages are seconds. What
//! is not known is null, never a made-up value.

use std::{borrow::Cow, collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::timeline::Timeline;
use crate::{
    accounting::{Rates, Verdict},
    kernel::Counters,
    policy::level::Level,
    process::Pod,
    sockets::Drift,
    stacks::Frame,
};

/// The version of this model.
pub const SCHEMA: &str = "connleak.report/1";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// connleak's own version.
    pub version: String,
    /// Release of the running kernel (`uname -r`).
    pub kernel: String,
    pub host: String,
    pub boot_id: String,
    /// Inode of connleak's own network namespace, the one that the totals count.
    pub netns: Option<u32>,
    /// When tracing started; of a snapshot, when it was taken.
    pub started_at: String,
    pub generated_at: String,
    /// The watched ports.
    pub ports: Vec<u16>,
    /// Which hook gives each kind of event; empty for a snapshot.
    pub probes: BTreeMap<String, String>,
    pub totals: Totals,
    /// Owners of client ends, the most outstanding first.
    pub openers: Vec<OpenerReport>,
    /// The systemd units of the openers, the most outstanding first; empty for a snapshot.
    pub units: Vec<UnitReport>,
    /// The lines that connections were opened from, whoever ran them, the most outstanding first;
    /// empty for a snapshot.
    pub sites: Vec<SiteTotals>,
    /// Owners of server ends on this host: the Redis servers themselves.
    pub servers: Vec<ServerReport>,
    /// How it came to this; null where no history was asked.
    pub timeline: Option<Timeline>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Sockets in ESTABLISHED with a watched port at either end: what `netstat | grep` counted.
    pub established_both_ends: u64,
    /// Of those, the ones with a watched remote port: applications' connections.
    pub established_client_ends: u64,
    pub close_wait: u64,
    /// Client ends of which neither an opener nor a holder is known.
    pub unattributed: u64,
    /// Sockets that the latest reconcile found different from the truth, and repaired.
    pub drift: u64,
    /// All that reconciling repaired since the start, by cause.
    pub drift_causes: Drift,
    /// What the kernel side could not deliver, by cause.
    pub lost: Lost,
    /// What the kernel side looked at; null for a snapshot.
    pub events: Option<Events>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Notices that found the ring full: late, not miscounted.
    pub ring_full: u64,
    /// Sockets that found the socket map full: not tracked until a reconcile.
    pub map_full: u64,
    /// Processes that found the opener map full: their opened and closed counts are missing.
    pub openers_full: u64,
    /// Stacks that found the ring full.
    pub stack_full: u64,
    /// Stacks not taken, because their process connects too often.
    pub stack_spared: u64,
    /// Stacks whose memory could not be read.
    pub stack_fault: u64,
    /// Runs of a program that the kernel left out, because one was busy on that processor: a
    /// stack, a release or an acceptor may be missing, never a socket.
    #[serde(default)]
    pub program_busy: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// Events of TCP sockets on any port, seen by the kernel side.
    pub seen: u64,
    /// Of those, the ones of a watched port.
    pub matched: u64,
    /// Events that reached userspace.
    pub delivered: u64,
}

impl Lost {
    pub fn from_counters(counters: &Counters) -> Self {
        Self {
            ring_full: counters.ring_full,
            map_full: counters.map_full,
            openers_full: counters.openers_full,
            stack_full: counters.stack_ring_full,
            stack_spared: counters.stack_spared,
            stack_fault: counters.stack_fault,
            program_busy: counters.program_busy,
        }
    }
}

/// A process and the client ends it answers for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenerReport {
    /// Null for the sockets of which nobody is known.
    pub pid: Option<u32>,
    /// Its PID in the innermost PID namespace, where that is another.
    pub inner_pid: Option<u32>,
    pub start_time: Option<String>,
    pub name: Option<String>,
    pub cmdline: Vec<String>,
    /// systemd unit, from its cgroup.
    pub unit: Option<String>,
    /// Container ID, from its cgroup.
    pub container: Option<String>,
    /// Kubernetes pod, from its cgroup; named where the node has the kubelet's logs.
    pub pod: Option<Pod>,
    /// User name, or the number where it has none.
    pub user: Option<String>,
    /// Inode of its network namespace.
    pub netns: Option<u32>,
    pub ended: bool,
    pub outstanding: u64,
    /// The most it had at once in the window of the history; null without one.
    pub peak_outstanding: Option<u64>,
    /// Sockets it called connect on since tracing started; null for a snapshot.
    pub opened: Option<u64>,
    /// Of those, the ones destroyed.
    pub closed: Option<u64>,
    pub states: BTreeMap<String, u64>,
    pub oldest_age_s: Option<f64>,
    #[serde(flatten)]
    pub trend: Trend,
    pub stacks: Vec<StackReport>,
    pub sockets: Vec<SocketReport>,
}

/// What the past of some connections says of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trend {
    /// Null where none can be given: then `facts` say why.
    pub verdict: Option<Verdict>,
    /// What made the verdict, or kept it from being given.
    pub facts: Vec<String>,
    /// Null for a snapshot, and where more is followed than can be.
    pub rates: Option<Rates>,
    /// Null where the count does not grow, or no level is above it.
    pub next_level: Option<NextLevel>,
}

/// The level that its port comes to if these connections go on growing as they do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NextLevel {
    pub level: Level,
    /// The count that it begins at.
    pub count: u32,
    pub in_s: f64,
}

/// A systemd unit and the client ends its processes answer for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitReport {
    pub unit: String,
    pub outstanding: u64,
    #[serde(flatten)]
    pub trend: Trend,
}

/// A line of code and the client ends that were opened from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteTotals {
    pub site: SiteReport,
    pub outstanding: u64,
    #[serde(flatten)]
    pub trend: Trend,
}

/// Sockets that were opened from the same place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StackReport {
    pub outstanding: u64,
    pub oldest_age_s: Option<f64>,
    pub youngest_age_s: Option<f64>,
    /// The application frame that a person would go to.
    pub site: Option<SiteReport>,
    /// Of its site, whoever ran it.
    pub verdict: Option<Verdict>,
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// Why there is no stack, or why it ends early.
    pub note: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SiteReport {
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SocketReport {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub state: Cow<'static, str>,
    /// Null where it was opened before tracing started.
    pub opened_at: Option<String>,
    /// Most have one; two take no more room.
    pub holders: SmallVec<[HolderReport; 2]>,
    /// Who called connect, where that is not the process it is listed under.
    pub opener: Option<OpenerName>,
    pub netns: u32,
    /// Since data last went either way.
    pub idle_s: Option<f64>,
    pub rx_queue_bytes: Option<u32>,
    pub tx_queue_bytes: Option<u32>,
    pub rx_bytes: Option<u64>,
    pub tx_bytes: Option<u64>,
    /// What Redis itself says of it; null where it was not asked, or does not list it.
    pub redis: Option<Box<ClientReport>>,
}

/// A line of Redis' CLIENT LIST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientReport {
    pub id: u64,
    /// CLIENT SETNAME.
    pub name: Option<String>,
    /// With its version; Redis knows it from 7.2 on.
    pub library: Option<String>,
    pub user: Option<String>,
    pub last_command: Option<String>,
    pub age_s: u64,
    /// Since its last command.
    pub idle_s: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HolderReport {
    pub pid: u32,
    pub fd: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenerName {
    pub pid: u32,
    pub name: String,
}

/// A process and the server ends it answers for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerReport {
    pub pid: Option<u32>,
    pub name: Option<String>,
    pub unit: Option<String>,
    pub outstanding: u64,
    pub states: BTreeMap<String, u64>,
}
