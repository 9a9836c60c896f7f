//! The sections of the configuration for Redis itself: where it is, and how its latency is probed.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::duration;
use super::model::one_minute;

/// Where Redis is and who we are there; passwords stay in files.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    pub enabled: bool,
    pub url: String,
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    pub password_credential: Option<String>,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub sentinels: Vec<String>,
    pub sentinel_master: Option<String>,
    pub sentinel_username: Option<String>,
    pub sentinel_password_file: Option<PathBuf>,
    #[serde(deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    #[serde(deserialize_with = "duration::deserialize")]
    pub info_interval: Duration,
    #[serde(deserialize_with = "duration::deserialize")]
    pub clients_interval: Duration,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            enabled: true,
            url: "redis://127.0.0.1:6379".to_owned(),
            username: None,
            password_file: None,
            password_credential: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            sentinels: Vec::new(),
            sentinel_master: None,
            sentinel_username: None,
            sentinel_password_file: None,
            timeout: Duration::from_secs(1),
            info_interval: Duration::from_secs(10),
            clients_interval: Duration::from_secs(60),
        }
    }
}

/// The latency probes; PING where the file names none.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct ProbeList(pub Vec<Probe>);

impl Default for ProbeList {
    fn default() -> Self {
        Self(vec![Probe {
            name: "ping".to_owned(),
            command: vec!["PING".to_owned()],
            interval: Duration::from_secs(1),
            average: Some(Duration::from_millis(1)),
            p99: Some(Duration::from_millis(5)),
            target_window: Duration::from_secs(60),
        }])
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    pub name: String,
    pub command: Vec<String>,
    #[serde(deserialize_with = "duration::deserialize")]
    pub interval: Duration,
    #[serde(default, deserialize_with = "duration::optional::deserialize")]
    pub average: Option<Duration>,
    #[serde(default, deserialize_with = "duration::optional::deserialize")]
    pub p99: Option<Duration>,
    #[serde(default = "one_minute", deserialize_with = "duration::deserialize")]
    pub target_window: Duration,
}
