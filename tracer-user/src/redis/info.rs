//! INFO: what Redis counts itself.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// One answer to INFO; what this Redis does not say is None.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServerInfo {
    pub version: Option<String>,
    pub run_id: Option<String>,
    pub role: Option<String>,
    pub uptime_s: Option<u64>,
    pub connected_clients: Option<u64>,
    pub blocked_clients: Option<u64>,
    /// From 7.0; before, CONFIG GET says it.
    pub max_clients: Option<u64>,
    pub used_memory_bytes: Option<u64>,
    pub max_memory_bytes: Option<u64>,
    pub connections_received: Option<u64>,
    pub rejected_connections: Option<u64>,
    pub evicted_keys: Option<u64>,
    /// From 6.2.
    pub error_replies: Option<u64>,
    /// By error code, from 6.2.
    pub errors: BTreeMap<String, u64>,
}

/// More codes than that are a script's inventions.
const MAX_ERROR_CODES: usize = 64;

impl ServerInfo {
    pub fn parse(text: &str) -> Self {
        let mut info = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.trim_end().split_once(':') else {
                continue;
            };
            let number = || value.parse::<u64>().ok();
            let text = || Some(value.to_owned());
            match key {
                "redis_version" => info.version = text(),
                "run_id" => info.run_id = text(),
                "role" => info.role = text(),
                "uptime_in_seconds" => info.uptime_s = number(),
                "connected_clients" => info.connected_clients = number(),
                "blocked_clients" => info.blocked_clients = number(),
                "maxclients" => info.max_clients = number(),
                "used_memory" => info.used_memory_bytes = number(),
                // 0 is no limit.
                "maxmemory" => info.max_memory_bytes = number().filter(|bytes| *bytes > 0),
                "total_connections_received" => info.connections_received = number(),
                "rejected_connections" => info.rejected_connections = number(),
                "evicted_keys" => info.evicted_keys = number(),
                "total_error_replies" => info.error_replies = number(),
                _ => {
                    let code = key.strip_prefix("errorstat_");
                    let count = value
                        .strip_prefix("count=")
                        .and_then(|text| text.parse().ok());
                    if let (Some(code), Some(count)) = (code, count)
                        && info.errors.len() < MAX_ERROR_CODES
                    {
                        info.errors.insert(code.to_owned(), count);
                    }
                }
            }
        }
        info
    }

    /// How many more clients Redis takes.
    pub fn headroom(&self) -> Option<u64> {
        Some(self.max_clients?.saturating_sub(self.connected_clients?))
    }
}

/// What rose between two answers, a minute; None where it cannot be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    pub error_replies_per_minute: Option<f64>,
    pub rejected_per_minute: Option<f64>,
    pub connections_per_minute: Option<f64>,
}

impl Rates {
    pub fn between(earlier: &ServerInfo, later: &ServerInfo, passed: Duration) -> Self {
        // Another run counts from zero.
        let same_run = earlier.run_id.is_some() && earlier.run_id == later.run_id;
        if !same_run || passed.is_zero() {
            return Self::default();
        }
        let minutes = passed.as_secs_f64() / 60.0;
        let rate =
            |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?) as f64 / minutes);
        Self {
            error_replies_per_minute: rate(earlier.error_replies, later.error_replies),
            rejected_per_minute: rate(earlier.rejected_connections, later.rejected_connections),
            connections_per_minute: rate(earlier.connections_received, later.connections_received),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\nuptime_in_seconds:10\r\n\
        # Clients\r\nconnected_clients:12\r\nmaxclients:100\r\n# Memory\r\nused_memory:1048576\r\n\
        maxmemory:0\r\n# Stats\r\nrejected_connections:3\r\ntotal_error_replies:7\r\n\
        # Errorstats\r\nerrorstat_ERR:count=5\r\nerrorstat_WRONGTYPE:count=2\r\nnonsense\r\n";

    #[test]
    fn the_fields_we_judge_by_are_read() {
        let info = ServerInfo::parse(INFO);
        assert_eq!(info.version.as_deref(), Some("7.0.15"));
        assert_eq!(info.headroom(), Some(88));
        assert_eq!(info.used_memory_bytes, Some(1 << 20));
        assert_eq!(info.max_memory_bytes, None);
        assert_eq!(
            (info.rejected_connections, info.error_replies),
            (Some(3), Some(7))
        );
        assert_eq!(info.errors["WRONGTYPE"], 2);
        assert_eq!(info.blocked_clients, None);
    }

    #[test]
    fn rates_are_within_one_run_only() {
        let earlier = ServerInfo::parse(INFO);
        let later = ServerInfo::parse(&INFO.replace("error_replies:7", "error_replies:17"));
        let rates = Rates::between(&earlier, &later, Duration::from_secs(30));
        assert_eq!(rates.error_replies_per_minute, Some(20.0));
        assert_eq!(rates.rejected_per_minute, Some(0.0));
        let restarted = ServerInfo::parse(&INFO.replace("run_id:abc", "run_id:def"));
        assert_eq!(
            Rates::between(&earlier, &restarted, Duration::from_secs(30)),
            Rates::default()
        );
    }

    #[test]
    fn any_bytes_are_read_without_harm() {
        assert_eq!(
            ServerInfo::parse("::\n:\nmaxclients:-1\nused_memory:x"),
            ServerInfo::default()
        );
    }
}
