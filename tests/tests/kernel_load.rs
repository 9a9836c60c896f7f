//! Many connections: nothing drifts, and what is lost is said.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use connleak_tests::client::redis_benchmark;
use connleak_tests::gate::{self, Need};
use connleak_tests::report::StackGroup;
use connleak_tests::server::RedisServer;
use connleak_tests::share;
use connleak_tests::tracer::Tracer;
use connleak_tests::truth;
use connleak_tests::wait;

#[test]
fn twenty_thousand_connections_leave_no_drift() -> Result<()> {
    if !gate::open("twenty_thousand_connections_leave_no_drift", Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let tracer = Tracer::start(&[server.port()])?;
    let connections = 20_000 / share::machines();
    redis_benchmark(server.v4(), connections)?;
    wait::until_equal("no socket at rest", &0, || {
        truth::not_destroyed(server.port())
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
        report.opened() >= u64::from(connections),
        "opened {} of {connections}",
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

fn ping(redis: &mut TcpStream) -> Result<()> {
    redis.write_all(b"PING\r\n")?;
    let mut answer = [0; b"+PONG\r\n".len()];
    redis.read_exact(&mut answer)?;
    Ok(())
}

/// Addresses of sockets that end get slots, and each reconcile takes those back that nothing
/// happened in since the one before: here while the next sockets come.
#[test]
fn no_slot_is_taken_back_under_a_socket_that_just_begins() -> Result<()> {
    if !gate::open(
        "no_slot_is_taken_back_under_a_socket_that_just_begins",
        Need::Bpf,
    ) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let tracer = Tracer::start_with(&[server.port()], &["--reconcile", "50ms"])?;
    let began = Instant::now();
    let mut opened = 0_u64;
    while began.elapsed() < Duration::from_secs(3) {
        // Some end together, so that their entries wait for a while.
        let together = 1 + opened % 32;
        let open: std::io::Result<Vec<TcpStream>> = (0..together)
            .map(|_| TcpStream::connect(server.v4()))
            .collect();
        let mut open = open?;
        // Who is answered was accepted, and so were those before it: beyond what the server's queue
        // takes, an end has to wait for retransmissions.
        if let Some(last) = open.last_mut() {
            ping(last)?;
        }
        drop(open);
        opened += together;
    }
    let held: Vec<TcpStream> = (0..32)
        .map(|_| TcpStream::connect(server.v4()))
        .collect::<std::io::Result<_>>()?;
    opened += 32;
    wait::until_equal("only both ends of what is held at rest", &64, || {
        truth::not_destroyed(server.port())
    })?;
    let report = tracer.finish()?;
    drop(held);
    let seen: Vec<_> = report
        .of(std::process::id())
        .map(|row| (row.opened, row.closed, row.outstanding))
        .collect();
    ensure!(
        seen == [(Some(opened), Some(opened - 32), 32)],
        "{seen:?} instead of {opened} opened, all but 32 closed: {:?}",
        report.totals
    );
    ensure!(
        report.totals.drift == 0 && report.totals.unattributed == 0,
        "{:?}",
        report.totals
    );
    Ok(())
}

/// Beyond so many stacks a second and process, one in 256 is taken.
const STACKS_PER_SECOND: u64 = 20;
const CONNECTS: u64 = 400;

#[test]
fn a_process_that_connects_too_often_is_sampled_and_the_report_says_so() -> Result<()> {
    let test = "a_process_that_connects_too_often_is_sampled_and_the_report_says_so";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let limit = STACKS_PER_SECOND.to_string();
    let tracer = Tracer::start_with(&[server.port()], &["--stacks-per-second", &limit])?;
    let began = Instant::now();
    let open: std::io::Result<Vec<TcpStream>> = (0..CONNECTS)
        .map(|_| TcpStream::connect(server.v4()))
        .collect();
    let open = open?;
    let windows = began.elapsed().as_secs() + 2;
    let report = tracer.finish()?;
    drop(open);
    let groups = report.of(std::process::id()).flat_map(|row| &row.stacks);
    let (spared, taken): (Vec<_>, Vec<_>) = groups.partition(|group| {
        let note = group.note.as_deref().unwrap_or_default();
        note == "stack not taken: the process connects too often"
    });
    let sum = |groups: &[&StackGroup]| groups.iter().map(|g| g.outstanding).sum::<u64>();
    let (spared, taken) = (sum(&spared), sum(&taken));
    let lost = report.totals.lost.get("stack_spared");
    ensure!(
        taken + spared == CONNECTS && lost == Some(&spared),
        "{taken} taken, {spared} spared, {lost:?} said to be"
    );
    ensure!(
        taken >= STACKS_PER_SECOND && taken <= windows * STACKS_PER_SECOND + CONNECTS / 256,
        "{taken} of {CONNECTS} taken, within {windows} s"
    );
    Ok(())
}
