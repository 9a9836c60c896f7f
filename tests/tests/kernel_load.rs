//! Many connections: nothing drifts, and what is lost is said.

use anyhow::{Result, ensure};
use connleak_tests::client::redis_benchmark;
use connleak_tests::gate::{self, Need};
use connleak_tests::server::RedisServer;
use connleak_tests::tracer::Tracer;
use connleak_tests::truth::{self, Count};
use connleak_tests::wait;

#[test]
fn twenty_thousand_connections_leave_no_drift() -> Result<()> {
    if !gate::open("twenty_thousand_connections_leave_no_drift", Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let tracer = Tracer::start(&[server.port()])?;
    redis_benchmark(server.v4(), 20_000)?;
    let none = Count {
        both_ends: 0,
        client_ends: 0,
    };
    wait::until_equal("no connection at rest", &none, || {
        truth::count(server.port())
    })?;
    let report = tracer.finish()?;
    let totals = &report.totals;
    ensure!(totals.drift == 0, "drift {}", totals.drift);
    ensure!(
        totals.established_both_ends == 0 && totals.unattributed == 0,
        "{totals:?}"
    );
    ensure!(
        report.openers.iter().all(|o| o.outstanding == 0),
        "{:?}",
        report.openers
    );
    for cause in ["ring_full", "map_full", "stack_full"] {
        ensure!(
            totals.lost.contains_key(cause),
            "no lost.{cause}: {:?}",
            totals.lost
        );
    }
    ensure!(
        report.opened() >= 20_000,
        "opened {} of 20,000",
        report.opened()
    );
    for row in &report.openers {
        ensure!(
            row.opened == row.closed,
            "{:?} opened, {:?} closed by {:?}",
            row.opened,
            row.closed,
            row.pid
        );
    }
    Ok(())
}
