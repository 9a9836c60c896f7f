//! The probing of Redis, beside the tracing: its newest report and each change of its health.

use anyhow::Result;
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::redis::health::HealthChange;
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

    pub(super) fn report(probing: &Option<Self>) -> Option<RedisReport> {
        let probing = probing.as_ref()?;
        Some(probing.reports.borrow().clone())
    }
}
