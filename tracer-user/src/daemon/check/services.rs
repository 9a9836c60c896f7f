//! What systemd says of services, and what their journals have.

use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::finding::{Finding, Grade, finding};
use crate::action::restart::Systemd;
use crate::config::Config;

const JOURNAL: Duration = Duration::from_secs(20);

pub(super) async fn of_services(config: &Config) -> Vec<Finding> {
    let services = &config.check.services;
    if services.is_empty() {
        return Vec::new();
    }
    let systemd = Systemd::connect().await;
    let mut findings = Vec::new();
    for service in services {
        let status = match &systemd {
            Ok(systemd) => systemd.status(service).await.map_err(|it| it.to_string()),
            Err(error) => Err(error.to_string()),
        };
        findings.push(match status {
            Ok(status) => {
                let grade = match status.active.as_str() {
                    "active" => Grade::Ok,
                    "activating" | "reloading" => Grade::Warning,
                    _ => Grade::Critical,
                };
                finding(service, grade, format!("{} {}", status.active, status.sub))
            }
            Err(error) => finding(service, Grade::Unknown, error),
        });
        findings.push(of_journal(service, config.check.journal_window).await);
    }
    findings
}

async fn of_journal(service: &str, window: Duration) -> Finding {
    let name = format!("journal {service}");
    let since = format!("--since=-{}s", window.as_secs());
    let reading = Command::new("journalctl")
        .args(["--quiet", "--no-pager", "--output=cat", "--priority=err"])
        .args(["--unit", service, &since])
        .kill_on_drop(true)
        .output();
    let output = match timeout(JOURNAL, reading).await {
        Ok(Ok(output)) if output.status.success() => output,
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let figure = format!("journalctl failed: {}", said.lines().next().unwrap_or(""));
            return finding(&name, Grade::Unknown, figure);
        }
        Ok(Err(error)) => {
            let figure = format!("failed to run journalctl: {error}");
            return finding(&name, Grade::Unknown, figure);
        }
        Err(_) => return finding(&name, Grade::Unknown, "journalctl gave no answer"),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = text.lines().filter(|line| !line.is_empty()).count();
    let grade = if errors == 0 {
        Grade::Ok
    } else {
        Grade::Warning
    };
    let minutes = window.as_secs() / 60;
    let last = text.lines().next_back().map(|line| format!(": {line}"));
    let figure = format!(
        "{errors} lines of errors in {minutes} min{}",
        last.unwrap_or_default()
    );
    finding(&name, grade, figure)
}
