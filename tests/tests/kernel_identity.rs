//! Which process is meant: a pid used again, and a pid that differs inside a container.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use connleak_tests::actor::{Actors, FIRST};
use connleak_tests::gate::{self, Need};
use connleak_tests::peer::Peer;
use connleak_tests::script::{How, Op};
use connleak_tests::tracer::Tracer;

#[test]
fn a_pid_that_is_used_again_does_not_mix_two_processes() -> Result<()> {
    let name = "a_pid_that_is_used_again_does_not_mix_two_processes";
    if !gate::open(name, Need::Bpf) {
        return Ok(());
    }
    let peer = Peer::start()?;
    let tracer = Tracer::start(&[peer.port()])?;
    let mut actors = Actors::start()?;
    let open = |socket| Op::Open {
        socket,
        how: How::Connect,
        to: peer.v4(),
    };
    let pid = actors
        .order(
            FIRST,
            Op::Fork {
                child: "old".into(),
                pid: None,
            },
        )?
        .pid;
    let inherited = actors.order("old", open(0))?.local.context("a local end")?;
    actors.order("old", open(1))?;
    actors.order(
        "old",
        Op::Pass {
            socket: 0,
            to: FIRST.into(),
        },
    )?;
    // A report tells milliseconds: the two must not start within one.
    thread::sleep(Duration::from_millis(2));
    actors.order("old", Op::Exit)?;
    let Some(again) = actors.fork_as(FIRST, "new", pid)? else {
        gate::skip(name, "kernel of the host lets nobody choose a pid");
        return Ok(());
    };
    ensure!(
        again.pid == pid,
        "the new process is {}, not {pid}",
        again.pid
    );
    // It holds what FIRST held when it forked; only the next socket is its own.
    let own = actors.order("new", open(2))?.local.context("a local end")?;
    peer.wait_accepted(3)?;
    let report = tracer.finish()?;
    let living: Vec<_> = report.of(pid).filter(|o| !o.ended).collect();
    ensure!(living.len() == 1, "{living:?}");
    ensure!(
        (living[0].outstanding, living[0].opened) == (1, Some(1)),
        "{:?}",
        living[0]
    );
    ensure!(
        living[0].sockets.iter().all(|s| s.local == own.to_string()),
        "{:?}",
        living[0].sockets
    );
    for dead in report.of(pid).filter(|o| o.ended) {
        ensure!(dead.outstanding == 0 && dead.opened == Some(2), "{dead:?}");
        ensure!(dead.start_time != living[0].start_time, "{dead:?}");
    }
    let first = actors.pid(FIRST).context("an actor")?;
    let sockets = report.sockets()?;
    let (_, row, socket) = sockets
        .iter()
        .find(|(ends, _, _)| ends.0 == inherited)
        .context("the inherited socket")?;
    ensure!(
        row.pid == Some(first),
        "{inherited} is in the row of {:?}",
        row.pid
    );
    ensure!(socket.holding_pids() == [first, pid].into(), "{socket:?}");
    ensure!(
        socket.opener.as_ref().is_some_and(|o| o.pid == pid),
        "{socket:?}"
    );
    Ok(())
}

#[test]
fn a_process_in_a_pid_namespace_has_both_its_pids() -> Result<()> {
    if !gate::open("a_process_in_a_pid_namespace_has_both_its_pids", Need::Bpf) {
        return Ok(());
    }
    let peer = Peer::start()?;
    let tracer = Tracer::start(&[peer.port()])?;
    let mut actors = Actors::start()?;
    actors.order(FIRST, Op::UnsharePids)?;
    let pid = actors
        .order(
            FIRST,
            Op::Fork {
                child: "init".into(),
                pid: None,
            },
        )?
        .pid;
    actors.order(
        "init",
        Op::Open {
            socket: 0,
            how: How::Connect,
            to: peer.v4(),
        },
    )?;
    peer.wait_accepted(1)?;
    let report = tracer.finish()?;
    let row = report
        .of(pid)
        .next()
        .with_context(|| format!("no row of {pid}: {:?}", report.openers))?;
    ensure!(row.outstanding == 1 && row.inner_pid == Some(1), "{row:?}");
    ensure!(
        row.sockets.iter().all(|s| s.holding_pids() == [pid].into()),
        "{:?}",
        row.sockets
    );
    Ok(())
}
