//! The metrics port: a small, bounded HTTP server. It knows nothing itself and asks the daemon.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::metrics::Exposition;

/// A few scrapers; who comes later waits in the listener's queue.
const MAX_CONNECTIONS: usize = 16;
/// The smallest that hyper takes: a scrape's header is a few hundred bytes.
const HEADER_BYTES: usize = 8192;
/// From one answer to the end of the next header: a scraper may keep its connection that long.
const HEADER_TIME: Duration = Duration::from_secs(90);
/// No connection, however busy, keeps its place for good.
const CONNECTION_TIME: Duration = Duration::from_secs(3600);
/// For the daemon's answer: it may be at an action's last stacks.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Longer than any stack's ID.
const ID_CHARS_MAX: usize = 64;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Metrics(Exposition),
    /// The stack of this ID, as JSON.
    Stack(String),
    /// Any answer says that the daemon's loop runs.
    Health,
}

/// What is wanted and where the page goes: None where there is no such thing.
pub(super) type Scrape = (Wanted, oneshot::Sender<Option<String>>);

/// Ends with its value, and every connection with it.
pub(super) struct Server {
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(super) fn open(address: SocketAddr, scrapes: mpsc::Sender<Scrape>) -> Result<Self> {
        let listener = listen(address).with_context(|| {
            format!("failed to listen for scrapes on {address}; set [export.prometheus] listen")
        })?;
        Ok(Self {
            task: tokio::spawn(serve(listener, scrapes)),
        })
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn serve(listener: TcpListener, scrapes: mpsc::Sender<Scrape>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: the next one may have more luck.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let scrapes = scrapes.clone();
        connections.spawn(async move {
            // A scraper that went away, or that sent no HTTP, is nobody to tell.
            let _ = timeout(CONNECTION_TIME, attend(stream, scrapes)).await;
            drop(place);
        });
    }
}

async fn attend(stream: TcpStream, scrapes: mpsc::Sender<Scrape>) -> hyper::Result<()> {
    let service = service_fn(|request| {
        let scrapes = scrapes.clone();
        async move { Ok::<_, Infallible>(answer(&request, scrapes).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(
    request: &Request<Incoming>,
    scrapes: mpsc::Sender<Scrape>,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
        let allowed = hyper::header::HeaderValue::from_static("GET, HEAD");
        refused.headers_mut().insert(ALLOW, allowed);
        return refused;
    }
    let accept = request.headers().get(ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok());
    let Some((wanted, content_type)) = wanted(request.uri().path(), accept) else {
        let text = "metrics are at /metrics, a stack at /stacks/ID, health at /healthz\n";
        return page(StatusCode::NOT_FOUND, TEXT, text);
    };
    let asking = async {
        let (to, answer) = oneshot::channel();
        scrapes.send((wanted, to)).await.ok()?;
        answer.await.ok()
    };
    match timeout(ANSWER_TIME, asking).await {
        Ok(Some(Some(text))) => page(StatusCode::OK, content_type, text),
        Ok(Some(None)) => page(
            StatusCode::NOT_FOUND,
            TEXT,
            "no such stack is outstanding\n",
        ),
        Ok(None) | Err(_) => page(
            StatusCode::SERVICE_UNAVAILABLE,
            TEXT,
            "the daemon gives no answer\n",
        ),
    }
}

fn wanted(path: &str, accept: Option<&str>) -> Option<(Wanted, &'static str)> {
    match path {
        "/metrics" => {
            let exposition = Exposition::accepted(accept);
            Some((Wanted::Metrics(exposition), exposition.content_type()))
        }
        "/healthz" => Some((Wanted::Health, TEXT)),
        _ => {
            let id = path.strip_prefix("/stacks/")?;
            let is_id = id.len() <= ID_CHARS_MAX && id.bytes().all(|it| it.is_ascii_alphanumeric());
            is_id.then(|| (Wanted::Stack(id.to_owned()), JSON))
        }
    }
}

fn page(
    status: StatusCode,
    content_type: &'static str,
    text: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let content_type = hyper::header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_what_is_wanted() {
        let openmetrics = Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
        for (path, accept, expected) in [
            (
                "/metrics",
                openmetrics,
                Some(Wanted::Metrics(Exposition::OpenMetrics)),
            ),
            ("/metrics", None, Some(Wanted::Metrics(Exposition::Text))),
            ("/healthz", None, Some(Wanted::Health)),
            (
                "/stacks/0a1b2c3d",
                None,
                Some(Wanted::Stack("0a1b2c3d".to_owned())),
            ),
            ("/stacks/../metrics", None, None),
            ("/", None, None),
        ] {
            let found = wanted(path, accept).map(|(wanted, _)| wanted);
            assert_eq!(found, expected, "{path}");
        }
    }
}
