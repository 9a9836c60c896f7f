//! A collector of OTLP metrics, over HTTP, that keeps what it is sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, metric, number_data_point};
use prost::Message;

use crate::wait;

type Received = Arc<Mutex<Vec<ExportMetricsServiceRequest>>>;

pub struct Collector {
    address: SocketAddr,
    received: Received,
}

impl Collector {
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let received = Received::default();
        let kept = Arc::clone(&received);
        // It ends with the test program.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = take(stream, &kept);
            }
        });
        Ok(Self { address, received })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The newest that it was sent.
    #[must_use]
    pub fn newest(&self) -> Option<ExportMetricsServiceRequest> {
        self.received.lock().ok()?.last().cloned()
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.received.lock().map_or(0, |received| received.len())
    }
}

/// The metric of this name, wherever it is in the request.
#[must_use]
pub fn metric<'a>(request: &'a ExportMetricsServiceRequest, name: &str) -> Option<&'a Metric> {
    let resources = request.resource_metrics.iter();
    let scopes = resources.flat_map(|it| &it.scope_metrics);
    scopes
        .flat_map(|it| &it.metrics)
        .find(|metric| metric.name == name)
}

#[must_use]
pub fn points(metric: &Metric) -> &[NumberDataPoint] {
    match &metric.data {
        Some(metric::Data::Gauge(gauge)) => &gauge.data_points,
        Some(metric::Data::Sum(sum)) => &sum.data_points,
        _ => &[],
    }
}

/// The sum of the points that have this attribute.
#[must_use]
pub fn sum_with(metric: &Metric, key: &str, value: &str) -> f64 {
    let with = points(metric)
        .iter()
        .filter(|point| text(&point.attributes, key) == Some(value));
    with.filter_map(|point| match point.value {
        Some(number_data_point::Value::AsDouble(value)) => Some(value),
        _ => None,
    })
    .sum()
}

#[must_use]
pub fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn take(mut stream: TcpStream, received: &Received) -> Result<()> {
    stream.set_read_timeout(Some(wait::patience()))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_lowercase());
    }
    let asked = lines.first().context("a request line")?;
    ensure!(asked.starts_with("post /v1/metrics "), "{asked}");
    let is_protobuf = |line: &String| line == "content-type: application/x-protobuf";
    ensure!(lines.iter().any(is_protobuf), "{lines:?}");
    let length = lines
        .iter()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.context("a length")?.parse()?];
    reader.read_exact(&mut body)?;
    let request = ExportMetricsServiceRequest::decode(&*body)?;
    if let Ok(mut received) = received.lock() {
        received.push(request);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
    Ok(())
}
