//! The OTLP sender posts metrics to a collector. A collector that is slow or away costs that
//! round only: the sums are cumulative, and the next round tells them again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// For one round, from connect to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An answer says at most which points were refused.
const ANSWER_BYTES: usize = 64 << 10;
const AGENT: &str = concat!("connleak/", env!("CARGO_PKG_VERSION"));

/// Ends with its value.
pub(super) struct OtlpSender {
    requests: mpsc::Sender<Vec<u8>>,
    errors: watch::Receiver<Option<String>>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtlpStatus {
    pub sent: u64,
    /// Rounds that the collector did not take.
    pub dropped: u64,
    /// Why the last round failed; null when it did not.
    pub error: Option<String>,
}

impl Drop for OtlpSender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl OtlpSender {
    /// # Errors
    ///
    /// The endpoint is no address that can be posted to.
    pub(super) fn start(endpoint: &str) -> Result<Self> {
        let target = target(endpoint)?;
        // One waits while one is on its way; a third is too many.
        let (requests, waiting) = mpsc::channel(1);
        let (to, errors) = watch::channel(None);
        let counts = Arc::new(Counts::default());
        Ok(Self {
            requests,
            errors,
            task: tokio::spawn(send(target, waiting, to, Arc::clone(&counts))),
            counts,
        })
    }

    pub(super) fn push(&self, request: Vec<u8>) {
        if self.requests.try_send(request).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn status(&self) -> OtlpStatus {
        OtlpStatus {
            sent: self.counts.sent.load(Ordering::Relaxed),
            dropped: self.counts.dropped.load(Ordering::Relaxed),
            error: self.errors.borrow().clone(),
        }
    }
}

/// The endpoint with the path of metrics, which an endpoint without a path lacks.
fn target(endpoint: &str) -> Result<Uri> {
    let uri: Uri = endpoint
        .parse()
        .with_context(|| format!("failed to understand the OTLP endpoint {endpoint}"))?;
    let path = uri.path().trim_end_matches('/');
    if uri.scheme_str() != Some("http") || uri.authority().is_none() {
        bail!("failed to use the OTLP endpoint {endpoint}: it must begin with http://");
    }
    if !path.is_empty() {
        return Ok(uri);
    }
    let base = endpoint.trim_end_matches('/');
    Ok(format!("{base}/v1/metrics").parse()?)
}

async fn send(
    target: Uri,
    mut waiting: mpsc::Receiver<Vec<u8>>,
    errors: watch::Sender<Option<String>>,
    counts: Arc<Counts>,
) {
    while let Some(request) = waiting.recv().await {
        let posted = timeout(TIMEOUT, post(&target, request)).await;
        let error = match posted.map_err(anyhow::Error::from).flatten() {
            Ok(()) => {
                counts.sent.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(error) => {
                counts.dropped.fetch_add(1, Ordering::Relaxed);
                Some(format!("failed to post metrics to {target}: {error:#}"))
            }
        };
        let _ = errors.send(error);
    }
}

async fn post(target: &Uri, body: Vec<u8>) -> Result<()> {
    let host = target.host().context("it has no host")?;
    let port = target.port_u16().unwrap_or(80);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::post(target.path())
        .header(HOST, target.authority().map_or(host, |it| it.as_str()))
        .header(CONTENT_TYPE, "application/x-protobuf")
        .header(USER_AGENT, AGENT)
        .body(Full::new(Bytes::from(body)))?;
    let answering = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        // Read to its end, or the collector sees a connection that breaks.
        let body = Limited::new(answer.into_body(), ANSWER_BYTES)
            .collect()
            .await;
        drop(sender);
        match (status.is_success(), body) {
            (true, _) => Ok(()),
            (false, _) => bail!("it answered {status}"),
        }
    };
    let (answered, _) = tokio::join!(answering, connection);
    answered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_a_path_gets_that_of_metrics() {
        let of = |endpoint| target(endpoint).map(|uri| uri.to_string()).ok();
        let of = |endpoint| of(endpoint).unwrap_or_default();
        assert_eq!(
            of("http://127.0.0.1:4318"),
            "http://127.0.0.1:4318/v1/metrics"
        );
        assert_eq!(of("http://c:4318/"), "http://c:4318/v1/metrics");
        assert_eq!(of("http://c/otlp/v1/metrics"), "http://c/otlp/v1/metrics");
        assert_eq!(of("https://c:4318"), "");
        assert_eq!(of("c:4318"), "");
    }
}
