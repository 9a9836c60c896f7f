//! How a socket can fail, be lost and end: the right state while it is held, nothing left after.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use connleak_tests::actor::{Actors, FIRST};
use connleak_tests::dial::set_option;
use connleak_tests::gate::{self, Need};
use connleak_tests::peer::{FullBacklog, Peer};
use connleak_tests::report::Report;
use connleak_tests::script::{Answer, How, Op};
use connleak_tests::server;
use connleak_tests::tracer::{self, Tracer};
use connleak_tests::{address, truth, wait};

fn open(actors: &mut Actors, socket: u32, how: How, to: SocketAddr) -> Result<Answer> {
    actors.tell(FIRST, Op::Open { socket, how, to })
}

fn first(actors: &Actors) -> u32 {
    actors.pid(FIRST).unwrap_or(0)
}

/// State of the one socket of `pid`, from the row's counts and from its list of sockets.
fn ensure_only_state(report: &Report, pid: u32, state: &str) -> Result<()> {
    let row = report
        .of(pid)
        .next()
        .with_context(|| format!("no row of {pid}: {:?}", report.openers))?;
    ensure!(
        row.outstanding == 1,
        "outstanding {}: {:?}",
        row.outstanding,
        row.sockets
    );
    ensure!(
        row.states.get(state) == Some(&1),
        "{:?}, expected {state}",
        row.states
    );
    ensure!(
        row.sockets.iter().all(|s| s.state == state),
        "{:?}",
        row.sockets
    );
    ensure!(
        row.sockets.iter().all(|s| s.holding_pids() == [pid].into()),
        "{:?}",
        row.sockets
    );
    Ok(())
}

/// Nothing of the port is left: no row with sockets, no total.
fn ensure_nothing_left(report: &Report) -> Result<()> {
    let left: Vec<_> = report
        .openers
        .iter()
        .filter(|o| o.outstanding > 0 || !o.sockets.is_empty())
        .collect();
    ensure!(left.is_empty(), "left over: {left:?}");
    ensure!(
        report.totals.established_both_ends == 0,
        "{:?}",
        report.totals
    );
    ensure!(
        report.totals.close_wait == 0 && report.totals.unattributed == 0,
        "{:?}",
        report.totals
    );
    ensure!(report.totals.drift == 0, "{:?}", report.totals);
    Ok(())
}

fn wait_all_gone(port: u16) -> Result<()> {
    wait::until("every socket of the port is gone", || {
        truth::sockets(port)
            .ok()?
            .iter()
            .all(|l| l.state == "TIME_WAIT")
            .then_some(())
    })
}

#[test]
fn a_refused_connect_leaves_nothing() -> Result<()> {
    if !gate::open("a_refused_connect_leaves_nothing", Need::Bpf) {
        return Ok(());
    }
    let port = server::free_port()?;
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let tracer = Tracer::start(&[port])?;
    let mut actors = Actors::start()?;
    for socket in 0..5 {
        let answer = open(&mut actors, socket, How::Connect, to)?;
        ensure!(answer.errno == Some(libc::ECONNREFUSED), "{answer:?}");
        actors.order(FIRST, Op::Close { socket })?;
    }
    ensure_nothing_left(&tracer.finish()?)
}

/// Two connects on one socket are two lives of it. Wherever its record is: at an address that is used
/// again that comes to be a slot.
#[test]
fn a_second_connect_on_a_socket_ends_its_first_life() -> Result<()> {
    const SOCKETS: u32 = 50;
    if !gate::open(
        "a_second_connect_on_a_socket_ends_its_first_life",
        Need::Bpf,
    ) {
        return Ok(());
    }
    let port = server::free_port()?;
    let refuses = SocketAddr::from(([127, 0, 0, 1], port));
    let peer = Peer::start()?;
    let tracer = Tracer::start(&[port, peer.port()])?;
    let mut actors = Actors::start()?;
    for socket in 0..SOCKETS {
        let answer = open(&mut actors, socket, How::Connect, refuses)?;
        ensure!(answer.errno == Some(libc::ECONNREFUSED), "{answer:?}");
        let answer = open(&mut actors, socket, How::Connect, peer.v4())?;
        ensure!(answer.errno.is_none(), "{answer:?}");
        actors.order(FIRST, Op::Abort { socket })?;
    }
    let (pid, accepts) = (first(&actors), peer.port());
    drop(peer);
    wait_all_gone(accepts)?;
    let report = tracer.finish()?;
    ensure_nothing_left(&report)?;
    let counts: Vec<_> = report.of(pid).map(|row| (row.opened, row.closed)).collect();
    let lives = Some(u64::from(2 * SOCKETS));
    ensure!(counts == [(lives, lives)], "{counts:?}, expected {lives:?}");
    Ok(())
}

#[test]
fn a_refused_connect_that_is_still_held_is_not_established() -> Result<()> {
    if !gate::open(
        "a_refused_connect_that_is_still_held_is_not_established",
        Need::Bpf,
    ) {
        return Ok(());
    }
    let port = server::free_port()?;
    let tracer = Tracer::start(&[port])?;
    let mut actors = Actors::start()?;
    open(
        &mut actors,
        0,
        How::Connect,
        SocketAddr::from(([127, 0, 0, 1], port)),
    )?;
    let report = tracer.finish()?;
    ensure!(
        report.totals.established_both_ends == 0,
        "{:?}",
        report.totals
    );
    for row in report.of(first(&actors)) {
        ensure!(
            row.states.keys().all(|state| state == "CLOSE"),
            "{:?}",
            row.states
        );
    }
    Ok(())
}

#[test]
fn an_undecided_connect_is_syn_sent() -> Result<()> {
    if !gate::open("an_undecided_connect_is_syn_sent", Need::Bpf) {
        return Ok(());
    }
    let silent = FullBacklog::on(server::free_port()?)?;
    let to = silent.address()?;
    let tracer = Tracer::start(&[to.port()])?;
    let mut actors = Actors::start()?;
    let answer = open(&mut actors, 0, How::Undecided, to)?;
    ensure!(answer.errno.is_none(), "{answer:?}");
    let report = tracer.finish()?;
    ensure_only_state(&report, first(&actors), "SYN_SENT")
}

#[test]
fn a_connect_that_times_out_leaves_nothing() -> Result<()> {
    if !gate::open("a_connect_that_times_out_leaves_nothing", Need::Bpf) {
        return Ok(());
    }
    let silent = FullBacklog::on(server::free_port()?)?;
    let to = silent.address()?;
    let tracer = Tracer::start(&[to.port()])?;
    let mut actors = Actors::start()?;
    let answer = open(&mut actors, 0, How::ShortTimeout, to)?;
    ensure!(answer.errno == Some(libc::ETIMEDOUT), "{answer:?}");
    actors.order(FIRST, Op::Close { socket: 0 })?;
    let report = tracer.finish()?;
    let pid = first(&actors);
    ensure!(
        report.outstanding(pid) == 0,
        "{:?}",
        report.of(pid).collect::<Vec<_>>()
    );
    ensure!(report.totals.drift == 0, "{:?}", report.totals);
    Ok(())
}

#[test]
fn a_non_blocking_connect_is_established() -> Result<()> {
    if !gate::open("a_non_blocking_connect_is_established", Need::Bpf) {
        return Ok(());
    }
    let peer = Peer::start()?;
    let tracer = Tracer::start(&[peer.port()])?;
    let mut actors = Actors::start()?;
    let answer = open(&mut actors, 0, How::NonBlocking, peer.v6())?;
    ensure!(answer.errno.is_none(), "{answer:?}");
    peer.wait_accepted(1)?;
    ensure_only_state(&tracer.finish()?, first(&actors), "ESTABLISHED")
}

/// Opens one connection, does `lose` to it, awaits the kernel's `state` (CLOSE is in no table of
/// the kernel's), and expects the report to say the same; then closes it and expects nothing.
fn loses(
    test: &str,
    state: &str,
    lose: impl Fn(&mut Actors, &Peer, SocketAddr) -> Result<()>,
) -> Result<()> {
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let peer = Peer::start()?;
    let port = peer.port();
    let held = Tracer::start(&[port])?;
    let ended = Tracer::start(&[port])?;
    let mut actors = Actors::start()?;
    let local = open(&mut actors, 0, How::Connect, peer.v4())?
        .local
        .context("a local end")?;
    peer.wait_accepted(1)?;
    lose(&mut actors, &peer, local)?;
    wait::until("the kernel's state", || {
        let lines = truth::sockets(port).ok()?;
        let now = lines
            .iter()
            .find(|l| l.ends.0 == address::plain(local) && l.inode != 0)
            .map(|l| l.state);
        (now.unwrap_or("CLOSE") == state).then_some(())
    })?;
    let pid = first(&actors);
    let report = held.finish()?;
    ensure_only_state(&report, pid, state)?;
    ensure!(
        report.totals.close_wait == truth::close_wait(port)?,
        "{:?}",
        report.totals
    );
    let snapshot = tracer::snapshot(&[port])?;
    let seen = snapshot
        .sockets()?
        .into_iter()
        .any(|(_, _, s)| s.state == state && s.holding_pids() == [pid].into());
    ensure!(
        seen,
        "no {state} held by {pid} in the snapshot: {:?}",
        snapshot.openers
    );

    actors.order(FIRST, Op::Close { socket: 0 })?;
    drop(peer);
    wait_all_gone(port)?;
    ensure_nothing_left(&ended.finish()?)
}

#[test]
fn a_reset_by_the_peer_is_held_in_close() -> Result<()> {
    loses(
        "a_reset_by_the_peer_is_held_in_close",
        "CLOSE",
        |_, peer, local| peer.reset(local),
    )
}

#[test]
fn a_close_by_the_peer_is_close_wait() -> Result<()> {
    loses(
        "a_close_by_the_peer_is_close_wait",
        "CLOSE_WAIT",
        |_, peer, local| peer.close(local),
    )
}

#[test]
fn a_half_close_is_fin_wait2() -> Result<()> {
    loses("a_half_close_is_fin_wait2", "FIN_WAIT2", |actors, _, _| {
        actors.order(FIRST, Op::HalfClose { socket: 0 }).map(drop)
    })
}

/// The state hook leaves an orphan's FIN_WAIT2 to the destroy hook, which comes at once. Not to one
/// that stays there for longer than in TIME_WAIT: a walk finds it, and no drift is what it finds.
#[test]
fn an_orphan_that_stays_in_fin_wait2_is_no_drift() -> Result<()> {
    if !gate::open("an_orphan_that_stays_in_fin_wait2_is_no_drift", Need::Bpf) {
        return Ok(());
    }
    let peer = Peer::start()?;
    let port = peer.port();
    let tracer = Tracer::start_with(&[port], &["--reconcile", "100ms"])?;
    let stream = TcpStream::connect(peer.v4())?;
    peer.wait_accepted(1)?;
    let longest_s = 120;
    set_option(
        stream.as_raw_fd(),
        libc::IPPROTO_TCP,
        libc::TCP_LINGER2,
        longest_s,
    )?;
    drop(stream);
    wait::until_equal("one end in FIN_WAIT2", &1, || {
        let sockets = truth::sockets(port)?.into_iter();
        Ok(sockets.filter(|line| line.state == "FIN_WAIT2").count())
    })?;
    // What changed in the last 50 ms is left alone, so it takes two walks, of which nothing tells.
    std::thread::sleep(Duration::from_millis(500) * wait::slowness());
    let report = tracer.finish()?;
    let states: Vec<_> = report
        .of(std::process::id())
        .map(|row| row.states.clone())
        .collect();
    ensure!(
        report.totals.drift == 0 && report.totals.drift_causes.values().all(|&count| count == 0),
        "{:?}",
        report.totals
    );
    ensure!(
        states == [[("FIN_WAIT2".to_owned(), 1)].into()],
        "{states:?}"
    );
    Ok(())
}

#[test]
fn a_killed_process_leaves_nothing() -> Result<()> {
    if !gate::open("a_killed_process_leaves_nothing", Need::Bpf) {
        return Ok(());
    }
    let peer = Peer::start()?;
    let port = peer.port();
    let tracer = Tracer::start(&[port])?;
    let mut actors = Actors::start()?;
    for socket in 0..20 {
        let to = if socket % 2 == 0 {
            peer.v4()
        } else {
            peer.v6()
        };
        open(&mut actors, socket, How::Connect, to)?;
    }
    peer.wait_accepted(20)?;
    actors.kill(FIRST)?;
    drop(peer);
    wait_all_gone(port)?;
    ensure_nothing_left(&tracer.finish()?)
}

#[test]
fn an_aborted_connection_leaves_nothing() -> Result<()> {
    if !gate::open("an_aborted_connection_leaves_nothing", Need::Bpf) {
        return Ok(());
    }
    let peer = Peer::start()?;
    let port = peer.port();
    let tracer = Tracer::start(&[port])?;
    let mut actors = Actors::start()?;
    open(&mut actors, 0, How::Connect, peer.v4())?;
    peer.wait_accepted(1)?;
    actors.order(FIRST, Op::Abort { socket: 0 })?;
    drop(peer);
    wait_all_gone(port)?;
    ensure_nothing_left(&tracer.finish()?)
}
