//! The prober asks Redis on time, again and again, and survives whatever Redis does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Cmd, Value};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::clients::ClientList;
use super::connection::{Connection, ConnectionError};
use super::endpoint::{Endpoint, EndpointError};
use super::health::{Answer, Health, HealthChange};
use super::info::{Rates, ServerInfo};
use super::latency::{Latency, Summary, Target};
use crate::config::{self, template};
use crate::policy::observation::{RedisState, RedisView};

/// Between attempts to connect: doubled from the first to the last.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// A list of more clients than this takes more memory than it is worth.
const MAX_LISTED_CLIENTS: u64 = 20_000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeView {
    pub name: String,
    /// Over 5, 30 and 60 seconds; None without samples.
    pub windows: [Option<Summary>; 3],
    /// None without samples or targets.
    pub target_met: Option<bool>,
    /// The command's last error, while it lasts.
    pub error: Option<String>,
}

/// All that is known about Redis; the newest is always in the watch channel.
#[derive(Clone, Debug, Default)]
pub struct RedisReport {
    pub answer: Answer,
    pub cause: Option<String>,
    /// The ends of our own connection, local first: never counted.
    pub own: Option<(SocketAddr, SocketAddr)>,
    pub probes: Vec<ProbeView>,
    pub server: Option<ServerInfo>,
    pub rates: Rates,
    /// None before the first, when denied, or when there are too many.
    pub clients: Option<Arc<ClientList>>,
}

impl RedisReport {
    /// Whether its clients are few enough to be listed.
    pub fn lists_clients(&self) -> bool {
        may_list(self.server.as_ref())
    }

    /// What the policy wants to know of it.
    pub fn view(&self) -> RedisView {
        let first = self.probes.first().and_then(|probe| probe.windows[0]);
        RedisView {
            state: RedisState::from(self.answer),
            error_replies_per_minute: self.rates.error_replies_per_minute.unwrap_or(0.0),
            rejected_per_minute: self.rates.rejected_per_minute.unwrap_or(0.0),
            latency: first.map(|it| Duration::from_secs_f64(it.average_us / 1e6)),
        }
    }
}

struct Probe {
    name: String,
    command: Vec<Vec<template::Part>>,
    interval: Duration,
    target: Target,
    latency: Latency,
    error: Option<String>,
    due: Instant,
}

impl Probe {
    fn new(from: &config::Probe, now: Instant) -> Self {
        let parts = |argument: &String| {
            let text = || vec![template::Part::Text(argument.clone())];
            template::parse(argument).unwrap_or_else(|_| text())
        };
        Self {
            name: from.name.clone(),
            command: from.command.iter().map(parts).collect(),
            interval: from.interval,
            target: Target {
                window: from.target_window,
                average: from.average,
                p99: from.p99,
            },
            latency: Latency::default(),
            error: None,
            due: now,
        }
    }

    fn command(&self) -> Cmd {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut command = Cmd::new();
        for argument in &self.command {
            command.arg(template::render(argument, now));
        }
        command
    }

    fn view(&self, now: Duration) -> ProbeView {
        let wanted = self.target.average.or(self.target.p99);
        let windows = self.latency.summaries(now);
        ProbeView {
            name: self.name.clone(),
            windows,
            target_met: wanted.and_then(|_| self.target.is_met(&windows)),
            error: self.error.clone(),
        }
    }
}

pub struct Prober {
    endpoint: Endpoint,
    probes: Vec<Probe>,
    info_interval: Duration,
    clients_interval: Duration,
    connection: Option<Connection>,
    health: Health,
    began: Instant,
    connect_due: Instant,
    connect_pause: Duration,
    info_due: Instant,
    clients_due: Instant,
    server: Option<(Instant, ServerInfo)>,
    rates: Rates,
    clients: Option<Arc<ClientList>>,
}

impl Prober {
    pub fn new(config: &config::Config) -> Result<Self, EndpointError> {
        let now = Instant::now();
        Ok(Self {
            endpoint: Endpoint::new(&config.redis)?,
            probes: config
                .probe
                .0
                .iter()
                .map(|probe| Probe::new(probe, now))
                .collect(),
            info_interval: config.redis.info_interval.max(Duration::from_secs(1)),
            clients_interval: config.redis.clients_interval.max(Duration::from_secs(1)),
            connection: None,
            health: Health::default(),
            began: now,
            connect_due: now,
            connect_pause: RETRY_FIRST,
            info_due: now,
            clients_due: now,
            server: None,
            rates: Rates::default(),
            clients: None,
        })
    }

    /// Runs until nobody listens to `reports` any more. `changes` gets each change of health once.
    pub async fn run(
        mut self,
        reports: watch::Sender<RedisReport>,
        changes: mpsc::UnboundedSender<HealthChange>,
    ) {
        loop {
            tokio::select! {
                () = reports.closed() => return,
                () = sleep_until(self.next_due()) => {}
            }
            // A hung Redis holds this up for one timeout at most; a dropped listener ends it.
            let change = tokio::select! {
                () = reports.closed() => return,
                change = self.step() => change,
            };
            reports.send_replace(self.report());
            if let Some(change) = change {
                // Nobody to tell is no reason to stop measuring.
                let _ = changes.send(change);
            }
        }
    }

    fn next_due(&self) -> Instant {
        if self.connection.is_none() {
            return self.connect_due;
        }
        let probes = self.probes.iter().map(|probe| probe.due);
        let next = probes.min().unwrap_or(self.info_due);
        next.min(self.info_due).min(self.clients_due)
    }

    /// Does what is due; the change of health it led to.
    async fn step(&mut self) -> Option<HealthChange> {
        match self.ask().await {
            Ok(()) => self.health.answered(),
            Err(error) => {
                self.connection = None;
                self.clients = None;
                self.rates = Rates::default();
                self.connect_due = Instant::now() + self.connect_pause;
                self.connect_pause = (self.connect_pause * 2).min(RETRY_LAST);
                self.health.failed(&error)
            }
        }
    }

    async fn ask(&mut self) -> Result<(), ConnectionError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let opened = Connection::open(&self.endpoint).await?;
                self.server = None;
                self.connection.insert(opened)
            }
        };
        for probe in &mut self.probes {
            let started = Instant::now();
            if probe.due > started {
                continue;
            }
            // From now, not from when it was due: after a pause no burst of probes makes up for it.
            probe.due = started + probe.interval;
            let answer = connection.query::<Value>(&probe.command()).await;
            let (ended, took) = (self.began.elapsed(), started.elapsed());
            match answer {
                Ok(_) => {
                    probe.error = None;
                    probe.latency.record(ended, took);
                }
                Err(error) if error.is_reply() && !is_denied(&error) => {
                    probe.error = Some(error.to_string());
                }
                Err(error) => {
                    // An answer that never came took at least as long as we waited.
                    if matches!(error, ConnectionError::NoAnswer { .. }) {
                        probe.latency.record(ended, took);
                    }
                    probe.error = Some(error.to_string());
                    return Err(error);
                }
            }
        }
        self.connect_pause = RETRY_FIRST;
        self.ask_info().await?;
        self.ask_clients().await
    }

    async fn ask_info(&mut self) -> Result<(), ConnectionError> {
        let now = Instant::now();
        let Some(connection) = self.connection.as_mut().filter(|_| self.info_due <= now) else {
            return Ok(());
        };
        self.info_due = now + self.info_interval;
        let Some(text) = permitted(connection.query::<String>(&redis::cmd("INFO")).await)? else {
            self.server = None;
            return Ok(());
        };
        let mut server = ServerInfo::parse(&text);
        if server.max_clients.is_none() {
            let known = self
                .server
                .as_ref()
                .and_then(|(_, earlier)| earlier.max_clients);
            server.max_clients = match known {
                Some(known) => Some(known),
                None => {
                    let mut command = redis::cmd("CONFIG");
                    command.arg("GET").arg("maxclients");
                    let answer = connection.query::<(String, u64)>(&command).await;
                    permitted(answer)?.map(|(_, max)| max)
                }
            };
        }
        if let Some((at, earlier)) = &self.server {
            self.rates = Rates::between(earlier, &server, now.duration_since(*at));
        }
        self.server = Some((now, server));
        Ok(())
    }

    async fn ask_clients(&mut self) -> Result<(), ConnectionError> {
        let now = Instant::now();
        let Some(connection) = self.connection.as_mut().filter(|_| self.clients_due <= now) else {
            return Ok(());
        };
        self.clients_due = now + self.clients_interval;
        if !may_list(self.server.as_ref().map(|(_, server)| server)) {
            self.clients = None;
            return Ok(());
        }
        self.clients = permitted(ClientList::ask(connection).await)?.map(Arc::new);
        Ok(())
    }

    fn report(&self) -> RedisReport {
        let now = self.began.elapsed();
        RedisReport {
            answer: self.health.answer(),
            cause: self.health.cause().map(str::to_owned),
            own: self.connection.as_ref().and_then(Connection::ends),
            probes: self.probes.iter().map(|probe| probe.view(now)).collect(),
            server: self.server.as_ref().map(|(_, server)| server.clone()),
            rates: self.rates,
            clients: self.clients.clone(),
        }
    }
}

fn may_list(server: Option<&ServerInfo>) -> bool {
    let count = server.and_then(|server| server.connected_clients);
    count.is_none_or(|count| count <= MAX_LISTED_CLIENTS)
}

fn is_denied(error: &ConnectionError) -> bool {
    error.reply().and_then(|reply| reply.code()) == Some("NOAUTH")
}

/// A command that our ACL forbids is an answer we go without, not a failure of Redis.
fn permitted<T>(answer: Result<T, ConnectionError>) -> Result<Option<T>, ConnectionError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_reply() && !is_denied(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
