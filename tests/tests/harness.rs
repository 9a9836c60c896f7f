//! The harness judged by the kernel alone: an actor does what it says. Runs without connleak.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use connleak_tests::actor::{Actors, FIRST};
use connleak_tests::client::{Client, Library};
use connleak_tests::gate::{self, Need};
use connleak_tests::netns::NetNs;
use connleak_tests::peer::{FullBacklog, Peer};
use connleak_tests::script::{How, Op};
use connleak_tests::server::{self, RedisServer};
use connleak_tests::{address, truth, uring, wait};

fn state_of(port: u16, local: SocketAddr) -> Result<Option<&'static str>> {
    let lines = truth::sockets(port)?;
    Ok(lines
        .iter()
        .find(|l| l.ends.0 == address::plain(local))
        .map(|l| l.state))
}

#[test]
fn every_way_of_opening_is_established() -> Result<()> {
    let peer = Peer::start()?;
    let mut actors = Actors::start()?;
    let mut ways = vec![
        How::Connect,
        How::NonBlocking,
        How::Thread,
        How::FastOpen,
        How::SendTo,
    ];
    ways.push(How::ReusePort {
        from: SocketAddr::from(([127, 0, 0, 1], server::free_port()?)),
    });
    if uring::available().is_ok() {
        ways.extend([How::Uring, How::UringAsync]);
    }
    for (socket, how) in ways.into_iter().enumerate() {
        let socket = socket as u32;
        let answer = actors.order(
            FIRST,
            Op::Open {
                socket,
                how,
                to: peer.v4(),
            },
        )?;
        let local = answer.local.context("a local end")?;
        wait::until_equal(&format!("{how:?}"), &Some("ESTABLISHED"), || {
            state_of(peer.port(), local)
        })?;
        actors.order(FIRST, Op::Close { socket })?;
        peer.close(local)?;
    }
    Ok(())
}

#[test]
fn an_mptcp_socket_has_a_tcp_subflow() -> Result<()> {
    let peer = Peer::start()?;
    let mut actors = Actors::start()?;
    let answer = actors.tell(
        FIRST,
        Op::Open {
            socket: 0,
            how: How::Mptcp,
            to: peer.v4(),
        },
    )?;
    if let Some(errno) = answer.errno {
        let error = std::io::Error::from_raw_os_error(errno);
        gate::skip(
            "an_mptcp_socket_has_a_tcp_subflow",
            &format!("kernel of the host has no MPTCP: {error}"),
        );
        return Ok(());
    }
    let local = answer.local.context("a local end")?;
    wait::until_equal("the subflow", &Some("ESTABLISHED"), || {
        state_of(peer.port(), local)
    })
}

#[test]
fn holders_are_what_proc_says() -> Result<()> {
    let peer = Peer::start()?;
    let mut actors = Actors::start()?;
    actors.order(
        FIRST,
        Op::Open {
            socket: 0,
            how: How::Connect,
            to: peer.v4(),
        },
    )?;
    let fds = actors.order(FIRST, Op::Dup { socket: 0 })?.fds;
    ensure!(fds.len() == 2, "{fds:?}");
    actors.order(
        FIRST,
        Op::Fork {
            child: "p1".into(),
            pid: None,
        },
    )?;
    actors.order(
        "p1",
        Op::Fork {
            child: "p2".into(),
            pid: None,
        },
    )?;
    actors.order(
        "p2",
        Op::Open {
            socket: 1,
            how: How::Connect,
            to: peer.v4(),
        },
    )?;
    let passed = actors.order(
        "p2",
        Op::Pass {
            socket: 1,
            to: FIRST.into(),
        },
    )?;
    ensure!(Some(passed.pid) == actors.pid(FIRST), "{passed:?}");
    let before = actors.pid("p1");
    actors.order(
        "p1",
        Op::Exec {
            program: actors.renamed("renamed")?,
        },
    )?;
    ensure!(
        actors.order("p1", Op::Ping)?.pid == before.unwrap_or(0),
        "exec keeps the pid"
    );
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", before.unwrap_or(0)))?;
    ensure!(comm == "renamed\n", "{comm:?}");
    for (actor, expected) in [(FIRST, vec![2, 1]), ("p1", vec![2]), ("p2", vec![2, 1])] {
        let mut counts: Vec<usize> = truth::socket_fds(actors.pid(actor).unwrap_or(0))
            .values()
            .map(std::collections::BTreeSet::len)
            .collect();
        // The control socket is one fd more.
        let mut all = expected.clone();
        all.push(1);
        all.sort_unstable();
        counts.sort_unstable();
        ensure!(counts == all, "{actor} holds {counts:?}, not {all:?}");
    }
    actors.order(FIRST, Op::Exit)?;
    actors.order("p1", Op::Ping)?;
    actors.kill("p1")
}

#[test]
fn a_full_backlog_neither_accepts_nor_refuses() -> Result<()> {
    let silent = FullBacklog::on(server::free_port()?)?;
    let mut actors = Actors::start()?;
    let to = silent.address()?;
    let local = actors
        .order(
            FIRST,
            Op::Open {
                socket: 0,
                how: How::Undecided,
                to,
            },
        )?
        .local;
    ensure!(
        state_of(to.port(), local.context("a local end")?)? == Some("SYN_SENT"),
        "not SYN_SENT"
    );
    let answer = actors.tell(
        FIRST,
        Op::Open {
            socket: 1,
            how: How::ShortTimeout,
            to,
        },
    )?;
    ensure!(answer.errno == Some(libc::ETIMEDOUT), "{answer:?}");
    Ok(())
}

#[test]
fn resets_and_closes_reach_the_actor() -> Result<()> {
    let peer = Peer::start()?;
    let mut actors = Actors::start()?;
    let mut open = |socket| -> Result<SocketAddr> {
        let to = peer.v4_mapped();
        actors
            .order(
                FIRST,
                Op::Open {
                    socket,
                    how: How::Connect,
                    to,
                },
            )?
            .local
            .context("a local end")
    };
    let (reset, closed, half) = (open(0)?, open(1)?, open(2)?);
    peer.reset(reset)?;
    wait::until_equal("a reset", &None, || state_of(peer.port(), reset))?;
    peer.close(closed)?;
    wait::until_equal("a close", &Some("CLOSE_WAIT"), || {
        state_of(peer.port(), closed)
    })?;
    actors.order(FIRST, Op::HalfClose { socket: 2 })?;
    wait::until_equal("a half close", &Some("FIN_WAIT2"), || {
        state_of(peer.port(), half)
    })
}

#[test]
fn an_actor_moves_to_another_network_namespace() -> Result<()> {
    if !gate::open("an_actor_moves_to_another_network_namespace", Need::Root) {
        return Ok(());
    }
    let other = NetNs::new()?;
    let peer = other.enter(|| Peer::on(6379))?;
    let mut actors = Actors::start()?;
    actors.order(FIRST, Op::EnterNetNs { path: other.path() })?;
    actors.order(
        FIRST,
        Op::Open {
            socket: 0,
            how: How::Connect,
            to: peer.v4(),
        },
    )?;
    peer.wait_accepted(1)?;
    let there = truth::sockets_seen_by(actors.pid(FIRST).unwrap_or(0), 6379)?;
    ensure!(
        there.iter().filter(|l| l.state == "ESTABLISHED").count() == 2,
        "{there:?}"
    );
    Ok(())
}

#[test]
fn ss_and_proc_agree() -> Result<()> {
    let server = RedisServer::start()?;
    let mut actors = Actors::start()?;
    for (socket, to) in [server.v4(), server.v6(), server.v4_mapped()]
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
    wait::until_equal(
        "ss",
        &truth::Count {
            both_ends: 6,
            client_ends: 3,
        },
        || truth::count(server.port()),
    )?;
    // The server's first PING has left a TIME_WAIT.
    let lines = truth::sockets(server.port())?;
    let established = lines.iter().filter(|l| l.state == "ESTABLISHED").count();
    ensure!(established == 6, "{lines:?}");
    Ok(())
}

#[test]
fn every_client_leaves_what_it_says() -> Result<()> {
    let server = RedisServer::start()?;
    for library in [
        Library::Hiredis,
        Library::RedisRs,
        Library::RedisPy,
        Library::RedisPyAsyncio,
    ] {
        for to in [server.v4(), server.v6()] {
            let client = Client::start(library, to, 4, 1)?;
            wait::until_equal(
                &format!("{library:?}"),
                &truth::Count {
                    both_ends: 6,
                    client_ends: 3,
                },
                || truth::count(server.port()),
            )?;
            client.end()?;
            wait::until_equal(
                "the end",
                &truth::Count {
                    both_ends: 0,
                    client_ends: 0,
                },
                || truth::count(server.port()),
            )?;
        }
    }
    Ok(())
}

#[test]
fn pids_can_be_chosen_and_namespaced() -> Result<()> {
    if !gate::open("pids_can_be_chosen_and_namespaced", Need::Root) {
        return Ok(());
    }
    let mut actors = Actors::start()?;
    let pid = actors
        .order(
            FIRST,
            Op::Fork {
                child: "old".into(),
                pid: None,
            },
        )?
        .pid;
    actors.order("old", Op::Exit)?;
    match actors.fork_as(FIRST, "new", pid)? {
        Some(answer) => ensure!(answer.pid == pid, "{answer:?}"),
        None => gate::skip(
            "pids_can_be_chosen_and_namespaced",
            "kernel of the host lets nobody choose a pid",
        ),
    }
    actors.order(FIRST, Op::UnsharePids)?;
    let inner = actors
        .order(
            FIRST,
            Op::Fork {
                child: "init".into(),
                pid: None,
            },
        )?
        .pid;
    let status = std::fs::read_to_string(format!("/proc/{inner}/status"))?;
    let both = format!("NSpid:\t{inner}\t1");
    ensure!(status.contains(&both), "no {both:?} in {status}");
    Ok(())
}
