//! The daemon's metrics at an OpenTelemetry collector.

use anyhow::{Context, Result, ensure};
use connleak_tests::collector::{Collector, metric, points, sum_with, text};
use connleak_tests::daemon::Home;
use connleak_tests::gate::{self, Need};
use connleak_tests::server::{RedisServer, free_port};
use connleak_tests::unit::Unit;
use connleak_tests::wait;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, metric::Data};

#[test]
fn a_collector_receives_the_metrics() -> Result<()> {
    if !gate::open("a_collector_receives_the_metrics", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let leaky = Unit::new("leaky")?;
    let collector = Collector::start()?;
    let home = Home::new()?;
    let export = format!(
        "[export.otlp]\nenabled = true\ninterval = \"1s\"\nendpoint = \"http://{}\"\n",
        collector.address()
    );
    home.configure(redis.port(), "", &export)?;
    let daemon = home.start()?;
    let _client = leaky.client(redis.port(), 12)?;
    let request = wait::until("the client at the collector", || {
        let newest = collector.newest()?;
        let outstanding = metric(&newest, "connleak_outstanding_connections")?;
        (sum_with(outstanding, "unit", leaky.name()) == 12.0).then_some(newest)
    })?;

    let resource = request.resource_metrics[0].resource.as_ref();
    let attributes = &resource.context("a resource")?.attributes;
    ensure!(text(attributes, "service.name") == Some("connleak"));
    ensure!(text(attributes, "host.name").is_some());
    let opened = metric(&request, "connleak_opened_connections").context("opened")?;
    ensure!(opened.unit == "{connection}");
    let Some(Data::Sum(sum)) = &opened.data else {
        anyhow::bail!("a counter is a sum: {opened:?}");
    };
    ensure!(sum.is_monotonic);
    ensure!(sum.aggregation_temporality == AggregationTemporality::Cumulative as i32);
    let (start, now) = points(opened)
        .first()
        .map(|it| (it.start_time_unix_nano, it.time_unix_nano))
        .context("a point")?;
    ensure!(0 < start && start < now, "{start} {now}");
    wait::until("the daemon counts what it sent", || {
        daemon.status().ok()?["otlp"]["sent"]
            .as_u64()
            .filter(|sent| *sent > 0)
    })?;
    Ok(())
}

#[test]
fn a_collector_that_is_away_costs_nothing_but_its_rounds() -> Result<()> {
    if !gate::open("a_collector_that_is_away_costs_nothing", Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let leaky = Unit::new("leaky")?;
    let home = Home::new()?;
    let export = format!(
        "[export.otlp]\nenabled = true\ninterval = \"1s\"\nendpoint = \"http://127.0.0.1:{}\"\n",
        free_port()?
    );
    home.configure(redis.port(), "", &export)?;
    let daemon = home.start()?;
    daemon.says("failed to post metrics")?;
    let _leak = leaky.client(redis.port(), 30)?;
    daemon.says("-> LEAK")?;
    let status = daemon.status()?;
    ensure!(status["otlp"]["dropped"].as_u64() > Some(0), "{status:#}");
    ensure!(status["otlp"]["error"].is_string(), "{status:#}");
    Ok(())
}
