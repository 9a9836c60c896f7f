//! The probing of Redis, beside the tracing: its newest report and each change of its health.

use anyhow::Result;
use tokio::sync::{mpsc, watch};

use crate::config::{self, Config};
use crate::policy::observation::RedisView;
use crate::redis::clients::ClientList;
use crate::redis::connection::Connection;
use crate::redis::endpoint::Endpoint;
use crate::redis::health::{Answer, HealthChange};
use crate::redis::probe::{Prober, RedisReport};

/// Ends with its value: the prober stops when nobody listens.
pub(super) struct Probing {
    reports: watch::Receiver<RedisReport>,
    changes: mpsc::UnboundedReceiver<HealthChange>,
}

pub(super) enum Told {
    Report,
    Change(HealthChange),
}

impl Probing {
    /// None if the configuration wants no probes.
    pub(super) fn start(config: &Config) -> Result<Option<Self>> {
        if !config.redis.enabled {
            return Ok(None);
        }
        let prober = Prober::new(config)?;
        let (report, reports) = watch::channel(RedisReport::default());
        let (change, changes) = mpsc::unbounded_channel();
        tokio::spawn(prober.run(report, change));
        Ok(Some(Self { reports, changes }))
    }

    pub(super) async fn next(probing: &mut Option<Self>) -> Told {
        let Some(probing) = probing else {
            return std::future::pending().await;
        };
        tokio::select! {
            biased;
            Some(change) = probing.changes.recv() => Told::Change(change),
            Ok(()) = probing.reports.changed() => Told::Report,
            else => std::future::pending().await,
        }
    }

    /// The clients as Redis lists them at this moment; the prober's own list may be a minute old.
    pub(super) async fn clients_now(
        probing: &Option<Self>,
        redis: &config::Redis,
    ) -> Option<ClientList> {
        let report = Self::report(probing)?;
        if report.answer != Answer::Up || !report.lists_clients() {
            return None;
        }
        let endpoint = Endpoint::new(redis).ok()?;
        let mut connection = Connection::open(&endpoint).await.ok()?;
        ClientList::ask(&mut connection).await.ok()
    }

    /// What the policy wants to know: asked at every observation, so nothing is copied.
    pub(super) fn view(probing: &Option<Self>) -> RedisView {
        let view = |probing: &Self| probing.reports.borrow().view();
        probing.as_ref().map_or_else(RedisView::default, view)
    }

    pub(super) fn report(probing: &Option<Self>) -> Option<RedisReport> {
        let probing = probing.as_ref()?;
        Some(probing.reports.borrow().clone())
    }
}
