//! OTLP: metric families as the request that an OpenTelemetry collector takes.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value,
};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::metric::{Family, Kind, Point};
use crate::report::Report;

/// When the counters began, and now, in nanoseconds of Unix time.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub started_unix_ns: u64,
    pub now_unix_ns: u64,
}

/// The body of a POST to /v1/metrics.
pub fn otlp(families: &[Family], report: &Report, span: Span) -> Vec<u8> {
    let metrics = families.iter().filter(|family| !family.points.is_empty());
    let scope = InstrumentationScope {
        name: "connleak".to_owned(),
        version: report.version.clone(),
        ..InstrumentationScope::default()
    };
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource(report)),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope),
                metrics: metrics.map(|family| metric(family, span)).collect(),
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    };
    request.encode_to_vec()
}

/// Names are OpenTelemetry's semantic conventions.
fn resource(report: &Report) -> Resource {
    let attributes = [
        ("service.name", "connleak"),
        ("service.version", &report.version),
        ("service.instance.id", &report.boot_id),
        ("host.name", &report.host),
        ("os.type", "linux"),
        ("os.version", &report.kernel),
    ];
    Resource {
        attributes: attributes.map(|(key, value)| attribute(key, value)).into(),
        ..Resource::default()
    }
}

fn metric(family: &Family, span: Span) -> Metric {
    let points = family.points.iter().map(|it| point(it, family.kind, span));
    let data_points = points.collect();
    let data = match family.kind {
        Kind::Gauge => metric::Data::Gauge(Gauge { data_points }),
        Kind::Counter => metric::Data::Sum(Sum {
            data_points,
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        }),
    };
    Metric {
        name: family.name.to_owned(),
        description: family.help.to_owned(),
        unit: unit(family.unit).to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

/// UCUM, as OpenTelemetry writes units.
fn unit(unit: Option<&'static str>) -> &'static str {
    match unit {
        Some("seconds") => "s",
        Some("bytes") => "By",
        Some("connections") => "{connection}",
        Some(other) => other,
        None => "1",
    }
}

fn point(of: &Point, kind: Kind, span: Span) -> NumberDataPoint {
    let labels = of.labels.iter();
    NumberDataPoint {
        attributes: labels.map(|(key, value)| attribute(key, value)).collect(),
        start_time_unix_nano: match kind {
            Kind::Gauge => 0,
            Kind::Counter => span.started_unix_ns,
        },
        time_unix_nano: span.now_unix_ns,
        value: Some(number_data_point::Value::AsDouble(of.value)),
        ..NumberDataPoint::default()
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}
