//! Openers and holders apart: fork, dup, SCM_RIGHTS, exec, exit, and every way of opening.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use connleak_tests::actor::FIRST;
use connleak_tests::difference::differences;
use connleak_tests::gate::{self, Need};
use connleak_tests::netns::NetNs;
use connleak_tests::peer::Peer;
use connleak_tests::report::Report;
use connleak_tests::scene::Scene;
use connleak_tests::script::{How, Op};
use connleak_tests::tracer::{self, Tracer};
use connleak_tests::{actor::Actors, server, uring};

/// Traces what `act` does and expects no difference from the model; returns the report for more.
fn traced(
    test: &str,
    act: impl FnOnce(&mut Scene) -> Result<()>,
) -> Result<Option<(Report, Scene)>> {
    if !gate::open(test, Need::Bpf) {
        return Ok(None);
    }
    let mut scene = Scene::new()?;
    let tracer = Tracer::start(&scene.ports())?;
    act(&mut scene)?;
    scene.settle()?;
    let report = tracer.finish()?;
    let found = differences(&report, &scene.model, scene.peer.port())?;
    ensure!(
        found.is_empty(),
        "{} differences:\n{}",
        found.len(),
        found.join("\n")
    );
    Ok(Some((report, scene)))
}

#[test]
fn fork_dup_and_pass_add_holders_and_keep_the_opener() -> Result<()> {
    traced(
        "fork_dup_and_pass_add_holders_and_keep_the_opener",
        |scene| {
            let stranger = scene.fork(FIRST)?;
            let shared = scene.open(FIRST, How::Connect, scene.peer.v4())?;
            let twin = scene.fork(FIRST)?;
            scene.dup(&twin, shared)?;
            scene.pass(&twin, shared, &stranger)?;
            // The opener lets go; the others hold on.
            scene.close(FIRST, shared)
        },
    )
    .map(drop)
}

#[test]
fn a_socket_whose_opener_has_exited_is_listed_under_its_holder() -> Result<()> {
    let done = traced(
        "a_socket_whose_opener_has_exited_is_listed_under_its_holder",
        |scene| {
            let opener = scene.fork(FIRST)?;
            let socket = scene.open(&opener, How::Connect, scene.peer.v4())?;
            scene.pass(&opener, socket, FIRST)?;
            scene.exit(&opener)
        },
    )?;
    if let Some((report, scene)) = done {
        let pid = scene.pid(FIRST)?;
        ensure!(report.outstanding(pid) == 1, "{:?}", report.openers);
    }
    Ok(())
}

#[test]
fn exec_keeps_the_process_and_updates_its_name() -> Result<()> {
    traced("exec_keeps_the_process_and_updates_its_name", |scene| {
        scene.open(FIRST, How::Connect, scene.peer.v4())?;
        scene.exec(FIRST, "renamed")?;
        scene.open(FIRST, How::Connect, scene.peer.v6()).map(drop)
    })
    .map(drop)
}

#[test]
fn threads_count_for_their_process() -> Result<()> {
    let done = traced("threads_count_for_their_process", |scene| {
        for _ in 0..5 {
            scene.open(FIRST, How::Thread, scene.peer.v4())?;
        }
        Ok(())
    })?;
    if let Some((report, scene)) = done {
        ensure!(
            report.outstanding(scene.pid(FIRST)?) == 5,
            "{:?}",
            report.openers
        );
    }
    Ok(())
}

#[test]
fn fast_open_and_sendto_are_connects() -> Result<()> {
    traced("fast_open_and_sendto_are_connects", |scene| {
        scene.open(FIRST, How::FastOpen, scene.peer.v4())?;
        scene.open(FIRST, How::SendTo, scene.peer.v6()).map(drop)
    })
    .map(drop)
}

#[test]
fn io_uring_connects_have_their_process() -> Result<()> {
    let name = "io_uring_connects_have_their_process";
    if let Err(error) = uring::available() {
        gate::skip(
            name,
            &format!("kernel of the host refuses io_uring: {error}"),
        );
        return Ok(());
    }
    // Before 5.12 an io-wq worker was a kernel thread of no process.
    let workers = gate::kernel_version() >= (5, 12);
    let done = traced(name, |scene| {
        scene.open(FIRST, How::Uring, scene.peer.v4())?;
        if workers {
            scene.open(FIRST, How::UringAsync, scene.peer.v4())?;
        }
        Ok(())
    })?;
    if let Some((report, scene)) = done
        && workers
    {
        let groups: Vec<_> = report
            .of(scene.pid(FIRST)?)
            .flat_map(|o| &o.stacks)
            .collect();
        let of_worker = groups.iter().find(|g| {
            g.note
                .as_deref()
                .is_some_and(|n| n.contains("io_uring worker"))
        });
        let of_worker =
            of_worker.with_context(|| format!("no group says io_uring worker: {groups:?}"))?;
        ensure!(of_worker.outstanding == 1, "{of_worker:?}");
        ensure!(
            of_worker.frames.is_empty(),
            "a worker has no user stack: {of_worker:?}"
        );
    }
    Ok(())
}

#[test]
fn sockets_that_share_a_local_port_are_told_apart() -> Result<()> {
    traced("sockets_that_share_a_local_port_are_told_apart", |scene| {
        let from = server::free_port()?;
        let v4 = How::ReusePort {
            from: SocketAddr::from(([127, 0, 0, 1], from)),
        };
        let v6 = How::ReusePort {
            from: SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, from)),
        };
        let other = scene.fork(FIRST)?;
        scene.open(FIRST, v4, scene.peer.v4())?;
        scene.open(&other, v6, scene.peer.v6()).map(drop)
    })
    .map(drop)
}

#[test]
fn an_mptcp_connection_has_its_opener() -> Result<()> {
    let name = "an_mptcp_connection_has_its_opener";
    if !gate::open(name, Need::Bpf) {
        return Ok(());
    }
    let peer = Peer::start()?;
    let tracer = Tracer::start(&[peer.port()])?;
    let mut actors = Actors::start()?;
    let answer = actors.tell(
        FIRST,
        Op::Open {
            socket: 0,
            how: How::Mptcp,
            to: peer.v4(),
        },
    )?;
    if answer.errno == Some(libc::EPROTONOSUPPORT) || answer.errno == Some(libc::ENOPROTOOPT) {
        gate::skip(name, "kernel of the host has no MPTCP");
        return Ok(());
    }
    peer.wait_accepted(1)?;
    let report = tracer.finish()?;
    ensure!(report.outstanding(answer.pid) == 1, "{:?}", report.openers);
    ensure!(
        report.totals.established_both_ends == 2,
        "{:?}",
        report.totals
    );
    Ok(())
}

#[test]
fn sockets_of_other_network_namespaces_are_seen_and_labelled() -> Result<()> {
    if !gate::open(
        "sockets_of_other_network_namespaces_are_seen_and_labelled",
        Need::Bpf,
    ) {
        return Ok(());
    }
    let here = Peer::start()?;
    let other = NetNs::new()?;
    let there = other.enter(|| Peer::on(here.port()))?;
    let tracer = Tracer::start(&[here.port()])?;
    let mut actors = Actors::start()?;
    actors.order(
        FIRST,
        Op::Fork {
            child: "p1".into(),
            pid: None,
        },
    )?;
    actors.order("p1", Op::EnterNetNs { path: other.path() })?;
    actors.order(
        FIRST,
        Op::Open {
            socket: 0,
            how: How::Connect,
            to: here.v4(),
        },
    )?;
    actors.order(
        "p1",
        Op::Open {
            socket: 0,
            how: How::Connect,
            to: there.v4(),
        },
    )?;
    here.wait_accepted(1)?;
    there.wait_accepted(1)?;
    let report = tracer.finish()?;
    let inside = actors.pid("p1").context("a child")?;
    ensure!(report.outstanding(inside) == 1, "{:?}", report.openers);
    let label = |pid| {
        report
            .of(pid)
            .next()
            .and_then(|o| o.netns.clone())
            .map(|n| n.to_string())
    };
    let (ours, theirs) = (label(actors.pid(FIRST).unwrap_or(0)), label(inside));
    ensure!(ours != theirs, "both are labelled {ours:?}");
    ensure!(
        theirs
            .as_ref()
            .is_some_and(|n| n.contains(&other.inode().unwrap_or(0).to_string())),
        "{theirs:?}"
    );
    // The policy's number is this namespace's.
    ensure!(
        report.totals.established_client_ends == 1,
        "{:?}",
        report.totals
    );
    Ok(())
}

#[test]
fn a_snapshot_needs_no_tracing_to_tell_holders() -> Result<()> {
    if !gate::open("a_snapshot_needs_no_tracing_to_tell_holders", Need::Bpf) {
        return Ok(());
    }
    let mut scene = Scene::new()?;
    let socket = scene.open(FIRST, How::Connect, scene.peer.v4())?;
    let twin = scene.fork(FIRST)?;
    scene.dup(&twin, socket)?;
    scene.settle()?;
    let report = tracer::snapshot(&scene.ports())?;
    let mut listed = report.sockets()?;
    listed.retain(|(ends, _, _)| ends.1.port() == scene.peer.port());
    ensure!(listed.len() == 1, "{listed:?}");
    let holders = listed[0].2.holders.iter().map(|h| (h.pid, h.fd)).collect();
    ensure!(scene.model.holders(socket) == holders, "{holders:?}");
    Ok(())
}
