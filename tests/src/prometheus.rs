//! A real Prometheus that scrapes one target every second, with the shipped rules made quick.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::server::free_port;
use crate::{child, http, wait};

pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    _dir: TempDir,
}

/// The rules that the package installs.
#[must_use]
pub fn shipped_rules() -> PathBuf {
    dist().join("prometheus/connleak.rules.yml")
}

/// What is packaged beside the program.
#[must_use]
pub fn dist() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tracer-user/dist")
}

impl Prometheus {
    pub fn scraping(target: SocketAddr) -> Result<Self> {
        let dir = TempDir::with_prefix("connleak-prometheus-")?;
        let rules = dir.path().join("connleak.rules.yml");
        std::fs::write(&rules, quick(&std::fs::read_to_string(shipped_rules())?))?;
        let config = dir.path().join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\n\
             rule_files: [ \"{}\" ]\n\
             scrape_configs:\n- job_name: connleak\n  static_configs:\n  - targets: [ \"{target}\" ]\n",
            rules.display()
        );
        std::fs::write(&config, text)?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let child = child::bound(&mut Command::new("prometheus"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("failed to start prometheus; run `cargo xtask setup`")?;
        let prometheus = Self {
            child,
            address,
            _dir: dir,
        };
        wait::until("prometheus is ready", || {
            let ready = http::get(prometheus.address, "/-/ready", &[]).ok()?;
            (ready.status == 200).then_some(())
        })?;
        Ok(prometheus)
    }

    /// The series that the expression gives now.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let path = format!("/api/v1/query?query={}", encoded(expression));
        let answer = http::get(self.address, &path, &[])?;
        ensure!(answer.status == 200, "{expression}: {}", answer.body);
        let answer: Value = serde_json::from_str(&answer.body)?;
        Ok(answer["data"]["result"]
            .as_array()
            .cloned()
            .unwrap_or_default())
    }

    /// The alerts that fire now.
    pub fn firing(&self) -> Result<Vec<Value>> {
        let answer = http::get(self.address, "/api/v1/alerts", &[])?;
        let answer: Value = serde_json::from_str(&answer.body)?;
        let mut alerts = answer["data"]["alerts"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        alerts.retain(|alert| alert["state"] == "firing");
        Ok(alerts)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The shipped rules with every `for:` shortened to a second; nothing else is changed.
fn quick(rules: &str) -> String {
    let line = |line: &str| match line.trim_start().starts_with("for: ") {
        true => format!("{}for: 1s\n", &line[..line.len() - line.trim_start().len()]),
        false => format!("{line}\n"),
    };
    rules.lines().map(line).collect()
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// `promtool check metrics`: it ends well and has nothing to say.
pub fn check_metrics(page: &str) -> Result<()> {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("failed to start promtool; run `cargo xtask setup`")?;
    let mut stdin = promtool.stdin.take().context("stdin is piped")?;
    stdin.write_all(page.as_bytes())?;
    drop(stdin);
    let output = promtool.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "{said}\n{page}");
    Ok(())
}
