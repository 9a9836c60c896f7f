//! The status is all that the daemon knows at one moment: for `connleak status` and `check`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use super::otlp::OtlpStatus;
pub use super::stream::StreamStatus;
use crate::policy::level::Level;
use crate::redis::clients::Client;
use crate::redis::health;
use crate::redis::probe::{ProbeView, RedisReport};
use crate::report::model::Lost;

pub const SCHEMA: &str = "connleak.status/1";

/// Fields may be added. What is not known is null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: String,
    pub version: String,
    pub pid: u32,
    pub host: String,
    pub started_at: String,
    pub generated_at: String,
    /// Null when the built-in defaults are in force.
    pub config: Option<String>,
    pub dry_run: bool,
    pub probes: BTreeMap<String, String>,
    pub manual: Option<ManualStatus>,
    pub subjects: Vec<SubjectStatus>,
    pub ports: Vec<PortStatus>,
    /// The largest first.
    pub openers: Vec<OpenerStatus>,
    /// Until the next restart is possible; null when it is now.
    pub cooldown_left_s: Option<f64>,
    /// The unit whose action runs.
    pub acting: Option<String>,
    /// The unit whose last action is being verified.
    pub verifying: Option<String>,
    pub failed_restarts: u32,
    pub redis: Option<RedisStatus>,
    pub drift: u64,
    pub lost: Option<Lost>,
    pub resident_bytes: Option<u64>,
    pub usage: Option<UsageStatus>,
    /// Null where none is configured.
    pub stream: Option<StreamStatus>,
    pub otlp: Option<OtlpStatus>,
}

/// What the daemon takes of its machine, beside what its configuration allows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UsageStatus {
    /// User and system time of all its threads.
    pub cpu_s: f64,
    /// Of one CPU, over the last `cpu_window_s`.
    pub cpu_percent: f64,
    pub cpu_window_s: f64,
    /// `[limits] background_cpu_percent`.
    pub background_cpu_percent_max: u32,
    pub resident_bytes: Option<u64>,
    /// Maps and programs, as the kernel reckons: before 6.4 less than there is.
    pub kernel_bytes: Option<u64>,
    pub sockets: u64,
    /// `[limits] max_sockets`.
    pub sockets_max: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManualStatus {
    pub cause: String,
    pub for_s: f64,
}

/// A port or a unit with levels of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubjectStatus {
    pub subject: String,
    pub level: Level,
    /// Of the count now, held or not.
    pub raw_level: Level,
    pub count: u32,
    pub warning: u32,
    pub leak: u32,
    pub critical: u32,
    pub expected_min: Option<u32>,
    pub expected_max: Option<u32>,
    pub missing: bool,
    /// Why nothing is done about it.
    pub blocked: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    pub port: u16,
    pub established_both_ends: u32,
    pub established_client_ends: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenerStatus {
    pub pid: u32,
    pub name: Option<String>,
    pub unit: Option<String>,
    pub port: u16,
    pub outstanding: u32,
    pub growth_per_minute: f64,
    /// What Redis says of its connections; null where it lists none of them.
    pub redis: Option<OpenerInRedis>,
}

/// An opener's lines of CLIENT LIST, as of the latest one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OpenerInRedis {
    pub clients: u32,
    /// Of the client that is idle for longest, as are the following.
    pub library: Option<String>,
    pub last_command: Option<String>,
    pub age_s: u64,
    pub idle_s: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RedisStatus {
    pub state: health::Answer,
    pub cause: Option<String>,
    pub version: Option<String>,
    /// Ours are among [`PortStatus`].
    pub connected_clients: Option<u64>,
    pub max_clients: Option<u64>,
    pub used_memory_bytes: Option<u64>,
    pub rejected_connections: Option<u64>,
    pub rejected_per_minute: Option<f64>,
    pub error_replies_per_minute: Option<f64>,
    pub probes: Vec<ProbeView>,
}

impl OpenerInRedis {
    pub fn add(&mut self, client: &Client) {
        if self.clients == 0 || client.idle_s > self.idle_s {
            self.library.clone_from(&client.library);
            self.last_command.clone_from(&client.command);
            (self.age_s, self.idle_s) = (client.age_s, client.idle_s);
        }
        self.clients = self.clients.saturating_add(1);
    }
}

impl RedisStatus {
    pub fn of(report: &RedisReport) -> Self {
        let server = report.server.as_ref();
        Self {
            state: report.answer,
            cause: report.cause.clone(),
            version: server.and_then(|it| it.version.clone()),
            connected_clients: server.and_then(|it| it.connected_clients),
            max_clients: server.and_then(|it| it.max_clients),
            used_memory_bytes: server.and_then(|it| it.used_memory_bytes),
            rejected_connections: server.and_then(|it| it.rejected_connections),
            rejected_per_minute: report.rates.rejected_per_minute,
            error_replies_per_minute: report.rates.error_replies_per_minute,
            probes: report.probes.clone(),
        }
    }
}
