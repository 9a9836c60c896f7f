//! The sections of the configuration for what is exported, all of it off by default.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::duration;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Export {
    pub prometheus: Prometheus,
    pub otlp: Otlp,
    pub stream: Stream,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Prometheus {
    pub enabled: bool,
    pub listen: SocketAddr,
    /// Listening elsewhere than on loopback is meant.
    pub public: bool,
    pub top_pids: u32,
}

impl Default for Prometheus {
    fn default() -> Self {
        Self {
            enabled: false,
            listen: SocketAddr::from(([127, 0, 0, 1], 9469)),
            public: false,
            top_pids: 0,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    pub enabled: bool,
    pub endpoint: String,
    #[serde(deserialize_with = "duration::deserialize")]
    pub interval: Duration,
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            enabled: false,
            endpoint: "http://127.0.0.1:4318".to_owned(),
            interval: Duration::from_secs(10),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stream {
    pub enabled: bool,
    pub url: String,
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    pub key: String,
    pub max_len: u32,
    #[serde(deserialize_with = "duration::deserialize")]
    pub interval: Duration,
    pub buffer: u32,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            enabled: false,
            url: "redis://127.0.0.1:6379".to_owned(),
            username: None,
            password_file: None,
            key: "connleak:reports".to_owned(),
            max_len: 10_000,
            interval: Duration::from_secs(10),
            buffer: 100,
        }
    }
}
