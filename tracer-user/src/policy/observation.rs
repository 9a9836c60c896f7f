//! An observation is what the tracer and Redis say at one moment, and the only thing the policy sees.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Outstanding connections of one opener on one watched port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenerCount {
    pub pid: u32,
    /// The systemd unit of its cgroup; None outside any.
    pub unit: Option<String>,
    pub port: u16,
    pub outstanding: u32,
    pub growth_per_minute: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortCount {
    pub port: u16,
    /// As the configuration counts: both ends or client ends, connleak's own left out.
    pub count: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RedisState {
    /// Not probed yet, or not to be probed.
    #[default]
    Unknown,
    Up,
    /// Refuses connections or is gone.
    Down,
    /// Accepts, does not answer.
    Hung,
    /// Answers, but not to us: the password changed, an ACL forbids it.
    Denied,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RedisView {
    pub state: RedisState,
    pub error_replies_per_minute: f64,
    pub rejected_per_minute: f64,
    /// Average over the shortest window; None without a sample.
    pub latency: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    pub ports: &'a [PortCount],
    pub openers: &'a [OpenerCount],
    /// Growth that belongs to no known opener.
    pub unattributed_growth_per_minute: f64,
    /// Units that own a listening socket on a watched port: never acted on.
    pub listeners: &'a BTreeSet<String>,
    pub redis: RedisView,
}
