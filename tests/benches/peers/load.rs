//! A load: `redis-benchmark` against a private redis-server.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use connleak_tests::child;
use connleak_tests::server::RedisServer;

/// Clients of redis-benchmark: enough to keep two cores busy.
const CLIENTS: &str = "20";
/// Requests that a client sends at once.
const PIPELINED: &str = "16";
/// Hours of requests.
const NO_END: &str = "2000000000";
/// Until all clients are connected and the pace is even.
const WARMS_UP: Duration = Duration::from_secs(2);

/// Requests a second of `count` requests, each on a connection of its own.
pub(crate) fn churn(port: u16, count: u32) -> Result<f64> {
    let output = benchmark(port)
        .args(["-k", "0", "-n", &count.to_string()])
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

fn benchmark(port: u16) -> Command {
    let mut command = Command::new("redis-benchmark");
    command
        .args(["-h", "127.0.0.1", "-p", &port.to_string()])
        .args(["-c", CLIENTS, "-t", "ping_mbulk", "--csv"]);
    command
}

/// From the last line: `"PING_MBULK","14395.39",...`
fn requests_per_s(csv: &str) -> Option<f64> {
    let line = csv.lines().rfind(|line| line.starts_with("\"PING"))?;
    line.split(',').nth(1)?.trim_matches('"').parse().ok()
}

/// Requests on connections that stay, until it is dropped.
pub(crate) struct Endless {
    child: Child,
    server: redis::Connection,
}

impl Endless {
    pub(crate) fn begin(server: &RedisServer) -> Result<Self> {
        let mut command = benchmark(server.port());
        let child = child::bound(&mut command)
            .args(["-P", PIPELINED, "-n", NO_END])
            .stdout(Stdio::null())
            .spawn()
            .context("failed to run redis-benchmark")?;
        let client = redis::Client::open(format!("redis://{}", server.v4()))?;
        let load = Self {
            child,
            server: client.get_connection()?,
        };
        thread::sleep(WARMS_UP);
        Ok(load)
    }

    /// Requests a second, for about `time`.
    pub(crate) fn speed(&mut self, time: Duration) -> Result<f64> {
        let (began, before) = (Instant::now(), self.answered()?);
        thread::sleep(time);
        let answered = self.answered()? - before;
        ensure!(
            answered > 0.0,
            "failed to load redis: redis-benchmark ended or hangs"
        );
        Ok(answered / began.elapsed().as_secs_f64())
    }

    /// How many requests the server has answered.
    fn answered(&mut self) -> Result<f64> {
        let info: redis::InfoDict = redis::cmd("INFO").arg("stats").query(&mut self.server)?;
        info.get("total_commands_processed")
            .context("failed to find total_commands_processed in redis-server's INFO")
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
