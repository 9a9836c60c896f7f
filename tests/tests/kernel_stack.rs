//! Stacks: clients built without frame pointers are named function by function.

use anyhow::{Context, Result, ensure};
use connleak_tests::client::{Client, Library};
use connleak_tests::gate::{self, Need};
use connleak_tests::report::{FrameKind, Report};
use connleak_tests::server::RedisServer;
use connleak_tests::tracer::Tracer;

/// Traces a client that opens 12 and closes 4.
fn traced(library: Library) -> Result<(Report, u32)> {
    let server = RedisServer::start()?;
    let tracer = Tracer::start(&[server.port()])?;
    let client = Client::start(library, server.v4(), 12, 4)?;
    Ok((tracer.finish()?, client.pid()))
}

/// The one group of `pid` has all 8, and `expected` in this order, innermost first.
fn ensure_functions(report: &Report, pid: u32, expected: &[&str]) -> Result<()> {
    let groups = report.functions(pid);
    ensure!(
        groups.len() == 1,
        "one call path, {} groups: {groups:?}",
        groups.len()
    );
    let (outstanding, functions) = &groups[0];
    ensure!(*outstanding == 8, "{outstanding} outstanding");
    let mut rest = functions.iter();
    for name in expected {
        let is = |f: &&String| f.rsplit("::").next().is_some_and(|last| last == *name);
        rest.find(is)
            .with_context(|| format!("no {name} at its place in {functions:?}"))?;
    }
    Ok(())
}

#[test]
fn a_c_client_without_frame_pointers_is_named() -> Result<()> {
    if !gate::open("a_c_client_without_frame_pointers_is_named", Need::Bpf) {
        return Ok(());
    }
    let (report, pid) = traced(Library::Hiredis)?;
    ensure_functions(
        &report,
        pid,
        &["redisConnect", "acquire_connection", "fill_pool", "main"],
    )?;
    let group = report
        .of(pid)
        .flat_map(|o| &o.stacks)
        .next()
        .context("a group")?;
    ensure!(group.note.is_none(), "{:?}", group.note);
    let site = group.site.as_ref().and_then(|s| s.function.as_deref());
    ensure!(
        site == Some("acquire_connection"),
        "site {site:?}, not where the application called the library"
    );
    ensure!(
        group.frames.iter().all(|f| f.kind == FrameKind::Native),
        "{:?}",
        group.frames
    );
    let module = |name| {
        group
            .frames
            .iter()
            .find(|f| f.function.as_deref() == Some(name))
            .and_then(|f| f.module.clone())
    };
    ensure!(
        module("redisConnect").is_some_and(|m| m.contains("libhiredis")),
        "{:?}",
        module("redisConnect")
    );
    ensure!(
        module("fill_pool").is_some_and(|m| m.ends_with("hiredis_pool")),
        "{:?}",
        module("fill_pool")
    );
    Ok(())
}

#[test]
fn a_rust_client_without_frame_pointers_is_named() -> Result<()> {
    if !gate::open("a_rust_client_without_frame_pointers_is_named", Need::Bpf) {
        return Ok(());
    }
    let (report, pid) = traced(Library::RedisRs)?;
    // `Client::get_connection` is not among them: it ends in a call to `connect`, which release
    // builds jump to, and a tail call leaves no frame.
    ensure_functions(
        &report,
        pid,
        &["connect", "lease_connection", "fill_lease_pool", "main"],
    )?;
    let group = report.of(pid).flat_map(|o| &o.stacks).next();
    let site = group.and_then(|group| group.site.as_ref()?.function.as_deref());
    // With its path or without, as the compiler's options have it.
    let last = site.and_then(|site| site.rsplit("::").next());
    ensure!(last == Some("lease_connection"), "site {site:?}");
    Ok(())
}

#[test]
fn ages_lie_between_the_start_and_the_report() -> Result<()> {
    if !gate::open("ages_lie_between_the_start_and_the_report", Need::Bpf) {
        return Ok(());
    }
    let started = std::time::Instant::now();
    let (report, pid) = traced(Library::Hiredis)?;
    let at_most = started.elapsed().as_secs_f64();
    for opener in report.of(pid) {
        let oldest = opener.oldest_age_s.context("an age")?;
        ensure!(
            (0.0..=at_most).contains(&oldest),
            "{oldest} s old after {at_most} s"
        );
        for group in &opener.stacks {
            let (old, young) = (
                group.oldest_age_s.context("an age")?,
                group.youngest_age_s.context("an age")?,
            );
            ensure!(young <= old && old <= oldest, "{young}, {old}, {oldest}");
        }
    }
    Ok(())
}
