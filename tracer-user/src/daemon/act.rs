//! Carrying out an action: by systemd, by a command, by Redis itself.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;

use crate::action::restart::Systemd;
use crate::action::{client_kill, exec};
use crate::config::Config;
use crate::policy::decision::{Act, Outcome};
use crate::policy::rules::Rung;
use crate::redis::connection::Connection;
use crate::redis::endpoint::Endpoint;

/// What came of an action.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) id: u64,
    pub(super) unit: String,
    pub(super) outcome: Outcome,
    pub(super) record: Option<Value>,
}

/// `sockets`: the unit's client ends; `evidence`: as it is on disk.
pub(super) async fn carry_out(
    act: Act,
    config: Arc<Config>,
    sockets: Vec<(SocketAddr, SocketAddr)>,
    evidence: Vec<u8>,
) -> Done {
    let (outcome, record) = match act.rung {
        Rung::None => (Outcome::Done, None),
        Rung::Restart => (restart(&act.unit, &config).await, None),
        Rung::Exec => run(&act.unit, &config, &evidence).await,
        Rung::ClientKill => kill(&config, &sockets).await,
    };
    Done {
        id: act.id,
        unit: act.unit,
        outcome,
        record,
    }
}

async fn restart(unit: &str, config: &Config) -> Outcome {
    // The policy gives the action up after its timeout: what came of it must be known before.
    let wait = config.policy.action_timeout.mul_f64(0.9);
    match Systemd::connect().await {
        Ok(systemd) => systemd.restart(unit, wait).await,
        Err(error) => not_begun(&error),
    }
}

async fn run(unit: &str, config: &Config, evidence: &[u8]) -> (Outcome, Option<Value>) {
    let Some(unit) = config.unit.iter().find(|it| it.name == unit) else {
        let error = format!("failed to find the command of {unit}: it is not configured any more");
        return (Outcome::NotBegun { error }, None);
    };
    let (outcome, record) = exec::run(&unit.exec, evidence, unit.exec_timeout).await;
    (outcome, serde_json::to_value(record).ok())
}

async fn kill(config: &Config, sockets: &[(SocketAddr, SocketAddr)]) -> (Outcome, Option<Value>) {
    let endpoint = match Endpoint::new(&config.redis) {
        Ok(endpoint) => endpoint,
        Err(error) => return (not_begun(&error), None),
    };
    let mut connection = match Connection::open(&endpoint).await {
        Ok(connection) => connection,
        Err(error) => return (not_begun(&error), None),
    };
    let idle = config.policy.client_kill_idle;
    let (outcome, record) = client_kill::run(&mut connection, sockets, idle).await;
    (outcome, serde_json::to_value(record).ok())
}

fn not_begun(error: &dyn std::error::Error) -> Outcome {
    Outcome::NotBegun {
        error: error.to_string(),
    }
}
