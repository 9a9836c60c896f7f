//! What is counted: real clients against a real redis-server, and ss as the judge.

use std::net::TcpStream;

use anyhow::{Result, ensure};
use connleak_tests::actor::{Actors, FIRST};
use connleak_tests::client::{Client, Library, redis_cli};
use connleak_tests::gate::{self, Need};
use connleak_tests::netns::NetNs;
use connleak_tests::peer::Peer;
use connleak_tests::report::Report;
use connleak_tests::script::{How, Op};
use connleak_tests::server::{self, RedisServer};
use connleak_tests::tracer::{self, Tracer};
use connleak_tests::truth::{self, Count};
use connleak_tests::wait;

fn ensure_equals_ss(report: &Report, port: u16) -> Result<()> {
    let ss = truth::count(port)?;
    let told = Count {
        both_ends: report.totals.established_both_ends,
        client_ends: report.totals.established_client_ends,
    };
    ensure!(told == ss, "connleak counts {told:?}, ss {ss:?}");
    ensure!(report.totals.drift == 0, "drift {}", report.totals.drift);
    Ok(())
}

fn forty_opened_ten_closed(test: &str, library: Library) -> Result<()> {
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let tracer = Tracer::start(&[server.port()])?;
    let client = Client::start(library, server.v4(), 40, 10)?;
    wait::until_equal("both ends of 30 connections at rest", &60, || {
        truth::not_destroyed(server.port())
    })?;
    let report = tracer.finish()?;
    ensure_equals_ss(&report, server.port())?;
    ensure!(
        report.totals.unattributed == 0,
        "unattributed {}",
        report.totals.unattributed
    );
    let rows: Vec<_> = report.of(client.pid()).collect();
    ensure!(
        rows.len() == 1,
        "process {} has {} rows: {:?}",
        client.pid(),
        rows.len(),
        report.openers
    );
    let row = rows[0];
    ensure!(
        (row.outstanding, row.opened, row.closed) == (30, Some(40), Some(10)),
        "outstanding, opened, closed are {:?}",
        (row.outstanding, row.opened, row.closed)
    );
    ensure!(
        row.states.len() == 1 && row.states.get("ESTABLISHED") == Some(&30),
        "{:?}",
        row.states
    );
    ensure!(
        row.sockets.len() == 30,
        "{} sockets are listed",
        row.sockets.len()
    );
    let held = truth::socket_fds(client.pid());
    for socket in &row.sockets {
        ensure!(
            socket.holding_pids() == [client.pid()].into(),
            "holders {:?}",
            socket.holders
        );
        ensure!(
            socket
                .holders
                .iter()
                .all(|h| held.values().any(|fds| fds.contains(&h.fd))),
            "{:?} are no fds of {held:?}",
            socket.holders
        );
    }
    client.end()
}

#[test]
fn hiredis_leaves_thirty_of_forty() -> Result<()> {
    forty_opened_ten_closed("hiredis_leaves_thirty_of_forty", Library::Hiredis)
}

#[test]
fn redis_rs_leaves_thirty_of_forty() -> Result<()> {
    forty_opened_ten_closed("redis_rs_leaves_thirty_of_forty", Library::RedisRs)
}

#[test]
fn redis_py_leaves_thirty_of_forty() -> Result<()> {
    forty_opened_ten_closed("redis_py_leaves_thirty_of_forty", Library::RedisPy)
}

#[test]
fn redis_py_asyncio_leaves_thirty_of_forty() -> Result<()> {
    forty_opened_ten_closed(
        "redis_py_asyncio_leaves_thirty_of_forty",
        Library::RedisPyAsyncio,
    )
}

#[test]
fn redis_cli_has_one() -> Result<()> {
    if !gate::open("redis_cli_has_one", Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let tracer = Tracer::start(&[server.port()])?;
    let (cli, _stdin) = redis_cli(server.v6())?;
    let report = tracer.finish()?;
    ensure_equals_ss(&report, server.port())?;
    ensure!(report.outstanding(cli.pid()) == 1, "{:?}", report.openers);
    let name = report.of(cli.pid()).next().and_then(|o| o.name.clone());
    ensure!(name.as_deref() == Some("redis-cli"), "name {name:?}");
    Ok(())
}

#[test]
fn every_address_family_is_counted_as_ss_counts() -> Result<()> {
    if !gate::open("every_address_family_is_counted_as_ss_counts", Need::Bpf) {
        return Ok(());
    }
    let peer = Peer::start()?;
    let tracer = Tracer::start(&[peer.port()])?;
    let mut actors = Actors::start()?;
    for (socket, to) in [peer.v4(), peer.v6(), peer.v4_mapped()]
        .into_iter()
        .cycle()
        .take(9)
        .enumerate()
    {
        actors.order(
            FIRST,
            Op::Open {
                socket: socket as u32,
                how: How::Connect,
                to,
            },
        )?;
    }
    peer.wait_accepted(9)?;
    let report = tracer.finish()?;
    ensure_equals_ss(&report, peer.port())?;
    ensure!(
        report.totals.established_both_ends == 18,
        "{:?}",
        report.totals
    );
    ensure!(
        report.outstanding(actors.pid(FIRST).unwrap_or(0)) == 9,
        "{:?}",
        report.openers
    );
    Ok(())
}

#[test]
fn mapped_server_ends_are_counted_as_ss_counts() -> Result<()> {
    if !gate::open("mapped_server_ends_are_counted_as_ss_counts", Need::Bpf) {
        return Ok(());
    }
    NetNs::new()?.enter(|| {
        let peer = Peer::dual_stack(6379)?;
        let tracer = Tracer::start(&[6379])?;
        let mut actors = Actors::start()?;
        for (socket, to) in [peer.v4(), peer.v6(), peer.v4_mapped()]
            .into_iter()
            .enumerate()
        {
            actors.order(
                FIRST,
                Op::Open {
                    socket: socket as u32,
                    how: How::Connect,
                    to,
                },
            )?;
        }
        peer.wait_accepted(3)?;
        let report = tracer.finish()?;
        ensure_equals_ss(&report, 6379)?;
        ensure!(
            report.totals.established_both_ends == 6,
            "{:?}",
            report.totals
        );
        Ok(())
    })
}

#[test]
fn sockets_from_before_the_start_are_listed_with_their_holder() -> Result<()> {
    if !gate::open(
        "sockets_from_before_the_start_are_listed_with_their_holder",
        Need::Bpf,
    ) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let client = Client::start(Library::Hiredis, server.v4(), 7, 2)?;
    let rest = Count {
        both_ends: 10,
        client_ends: 5,
    };
    wait::until_equal("5 connections at rest", &rest, || {
        truth::count(server.port())
    })?;
    let report = Tracer::start(&[server.port()])?.finish()?;
    ensure_equals_ss(&report, server.port())?;
    ensure!(
        report.outstanding(client.pid()) == 5,
        "{:?}",
        report.openers
    );
    for group in report.of(client.pid()).flat_map(|o| &o.stacks) {
        ensure!(
            group.frames.is_empty(),
            "frames of a stack nobody saw: {:?}",
            group.frames
        );
        ensure!(
            group.note.as_deref() == Some("opened before tracing started"),
            "{:?}",
            group.note
        );
    }
    Ok(())
}

#[test]
fn a_snapshot_lists_holders_and_states_at_once() -> Result<()> {
    if !gate::open("a_snapshot_lists_holders_and_states_at_once", Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let client = Client::start(Library::Hiredis, server.v4(), 6, 1)?;
    let rest = Count {
        both_ends: 10,
        client_ends: 5,
    };
    wait::until_equal("5 connections at rest", &rest, || {
        truth::count(server.port())
    })?;
    let report = tracer::snapshot(&[server.port()])?;
    ensure_equals_ss(&report, server.port())?;
    let sockets = report.sockets()?;
    ensure!(sockets.len() == 5, "{} sockets", sockets.len());
    let held_by_server: u64 = report
        .servers
        .iter()
        .filter(|s| s.pid == Some(server.pid()))
        .map(|s| s.outstanding)
        .sum();
    ensure!(held_by_server == 5, "{:?}", report.servers);
    for ((local, _), _, socket) in sockets {
        let holder = if local.port() == server.port() {
            server.pid()
        } else {
            client.pid()
        };
        ensure!(socket.state == "ESTABLISHED", "{socket:?}");
        ensure!(
            socket.holding_pids() == [holder].into(),
            "{socket:?} is held by {holder}"
        );
        ensure!(
            socket.rx_queue_bytes.is_some() && socket.tx_queue_bytes.is_some(),
            "{socket:?}"
        );
    }
    Ok(())
}

#[test]
fn the_port_is_exact_and_other_ports_never_reach_userspace() -> Result<()> {
    if !gate::open(
        "the_port_is_exact_and_other_ports_never_reach_userspace",
        Need::Bpf,
    ) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    // 6379 against 63790: the old command's prefix match took both.
    let watched = server.port() / 10;
    let tracer = Tracer::start(&[watched])?;
    let held: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(server.v4()))
        .collect::<Result<_, _>>()?;
    let report = tracer.finish()?;
    drop(held);
    ensure!(report.ports == [watched], "{:?}", report.ports);
    ensure!(report.openers.is_empty(), "{:?}", report.openers);
    ensure!(
        report.totals.established_both_ends == 0,
        "{:?}",
        report.totals
    );
    let Some(events) = report.totals.events else {
        anyhow::bail!("the report has no totals.events")
    };
    ensure!(
        events.matched == 0 && events.delivered == 0 && events.seen >= 200,
        "{events:?}"
    );
    Ok(())
}

#[test]
fn two_ports_are_watched_at_once() -> Result<()> {
    if !gate::open("two_ports_are_watched_at_once", Need::Bpf) {
        return Ok(());
    }
    let peers = [Peer::start()?, Peer::start()?];
    let unwatched = server::free_port()?;
    let tracer = Tracer::start(&[peers[0].port(), peers[1].port(), unwatched])?;
    let mut actors = Actors::start()?;
    for (socket, peer) in peers.iter().enumerate() {
        actors.order(
            FIRST,
            Op::Open {
                socket: socket as u32,
                how: How::Connect,
                to: peer.v4(),
            },
        )?;
        peer.wait_accepted(1)?;
    }
    let report = tracer.finish()?;
    ensure!(
        report.totals.established_both_ends == 4,
        "{:?}",
        report.totals
    );
    ensure!(
        report.outstanding(actors.pid(FIRST).unwrap_or(0)) == 2,
        "{:?}",
        report.openers
    );
    Ok(())
}
