//! Languages: each client's leak is reported at its function, file and line, as the README says.

use std::env;

use anyhow::{Context as _, Result, ensure};
use connleak_tests::gate::{self, Need};
use connleak_tests::languages::{
    self, Entry, LeakingClient, Shown, entries, readme_table, written_table,
};
use connleak_tests::server::RedisServer;
use connleak_tests::tracer::Tracer;

const ORDERS: u32 = 3;

/// Every client leaks under one tracer; one that fails does not hide the others.
fn rows() -> Result<Vec<(Entry, Result<Shown>)>> {
    let server = RedisServer::start()?;
    let mut running = Vec::new();
    let mut options: Vec<&str> = Vec::new();
    for entry in entries() {
        let client = LeakingClient::start(&entry, server.v4(), ORDERS)
            .with_context(|| format!("{} {}", entry.language, entry.client))?;
        options.extend(entry.tracer_options);
        running.push((entry, client));
    }
    options.sort_unstable();
    options.dedup();
    let tracer = Tracer::start_with(&[server.port()], &options)?;
    for (entry, client) in &mut running {
        client
            .leak()
            .with_context(|| format!("{} {}", entry.language, entry.client))?;
    }
    let report = tracer.finish()?;
    let rows = running.into_iter().map(|(entry, client)| {
        let shown = languages::shown(&entry, &report, client.pid(), ORDERS.into());
        (entry, shown)
    });
    Ok(rows.collect())
}

#[test]
fn every_client_is_reported_where_it_connects_and_as_the_readme_says() -> Result<()> {
    let test = "every_client_is_reported_where_it_connects_and_as_the_readme_says";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let mut shown = Vec::new();
    let mut failures = Vec::new();
    for (entry, result) in rows()? {
        match result {
            Ok(row) => shown.push((entry, row)),
            Err(error) => {
                failures.push(format!("{} {}: {error:#}", entry.language, entry.client));
            }
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    let table = written_table(&shown);
    if env::var_os("CONNLEAK_WRITE_TABLE").is_some() {
        return languages::replaced(&table);
    }
    ensure!(
        readme_table()? == table,
        "README.md says otherwise; run `cargo xtask languages` if this is right:\n{table}"
    );
    Ok(())
}
