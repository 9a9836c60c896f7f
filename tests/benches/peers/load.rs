//! A load: `redis-benchmark` against a private redis-server.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Clients of redis-benchmark: enough to keep two cores busy.
const CLIENTS: &str = "20";

/// Requests a second of `count` requests, each on a connection of its own.
pub(crate) fn churn(port: u16, count: u32) -> Result<f64> {
    benchmark(port, &["-k", "0", "-n", &count.to_string()])
}

/// Requests a second on connections that stay.
pub(crate) fn traffic(port: u16, count: u32) -> Result<f64> {
    benchmark(port, &["-P", "16", "-n", &count.to_string()])
}

fn benchmark(port: u16, arguments: &[&str]) -> Result<f64> {
    let output = Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "-p", &port.to_string()])
        .args(["-c", CLIENTS, "-t", "ping_mbulk", "--csv"])
        .args(arguments)
        .output()
        .context("failed to run redis-benchmark")?;
    ensure!(
        output.status.success(),
        "failed to load redis on port {port}: {}",
        output.status
    );
    let text = String::from_utf8_lossy(&output.stdout);
    requests_per_s(&text).with_context(|| format!("failed to read redis-benchmark's {text:?}"))
}

/// From the last line: `"PING_MBULK","14395.39",...`
fn requests_per_s(csv: &str) -> Option<f64> {
    let line = csv.lines().rfind(|line| line.starts_with("\"PING"))?;
    line.split(',').nth(1)?.trim_matches('"').parse().ok()
}
