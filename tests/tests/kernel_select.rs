//! What `trace` is told to look at, and when it ends by itself.

use anyhow::{Context, Result, ensure};
use connleak_tests::actor::{Actors, FIRST};
use connleak_tests::gate::{self, Need};
use connleak_tests::peer::Peer;
use connleak_tests::script::{How, Op};
use connleak_tests::tracer::Tracer;

fn open(actors: &mut Actors, actor: &str, peer: &Peer) -> Result<()> {
    actors
        .order(
            actor,
            Op::Open {
                socket: 0,
                how: How::Connect,
                to: peer.v4(),
            },
        )
        .map(drop)
}

#[test]
fn pid_limits_the_report_to_that_process() -> Result<()> {
    if !gate::open("pid_limits_the_report_to_that_process", Need::Bpf) {
        return Ok(());
    }
    let peer = Peer::start()?;
    let mut actors = Actors::start()?;
    actors.order(
        FIRST,
        Op::Fork {
            child: "p1".into(),
            pid: None,
        },
    )?;
    let (wanted, other) = (
        actors.pid("p1").context("a child")?,
        actors.pid(FIRST).context("an actor")?,
    );
    let tracer = Tracer::start_with(&[peer.port()], &["--pid", &wanted.to_string()])?;
    open(&mut actors, FIRST, &peer)?;
    open(&mut actors, "p1", &peer)?;
    peer.wait_accepted(2)?;
    let report = tracer.finish()?;
    ensure!(report.outstanding(wanted) == 1, "{:?}", report.openers);
    ensure!(report.of(other).next().is_none(), "{:?}", report.openers);
    Ok(())
}

#[test]
fn for_ends_it_with_a_report() -> Result<()> {
    if !gate::open("for_ends_it_with_a_report", Need::Bpf) {
        return Ok(());
    }
    let peer = Peer::start()?;
    let tracer = Tracer::start_with(&[peer.port()], &["--for", "2s"])?;
    let mut actors = Actors::start()?;
    open(&mut actors, FIRST, &peer)?;
    peer.wait_accepted(1)?;
    let report = tracer.report()?;
    ensure!(
        report.outstanding(actors.pid(FIRST).unwrap_or(0)) == 1,
        "{:?}",
        report.openers
    );
    Ok(())
}

#[test]
fn sigterm_ends_it_with_a_report_too() -> Result<()> {
    if !gate::open("sigterm_ends_it_with_a_report_too", Need::Bpf) {
        return Ok(());
    }
    let peer = Peer::start()?;
    let tracer = Tracer::start(&[peer.port()])?;
    tracer.signal(libc::SIGTERM);
    ensure!(
        tracer.report()?.ports == [peer.port()],
        "the report is of another port"
    );
    Ok(())
}

#[test]
fn the_report_names_the_family_of_every_hook() -> Result<()> {
    if !gate::open("the_report_names_the_family_of_every_hook", Need::Bpf) {
        return Ok(());
    }
    let peer = Peer::start()?;
    let report = Tracer::start(&[peer.port()])?.finish()?;
    for row in ["connect", "close", "state", "accept"] {
        let family = report
            .probes
            .get(row)
            .with_context(|| format!("no {row} in {:?}", report.probes))?;
        let forced = gate::family();
        let connect_like = matches!(row, "connect" | "close");
        let as_forced =
            forced == "auto" || !connect_like || family.contains(&forced) || forced == "tracepoint";
        ensure!(as_forced, "{row} is served by {family}, not by {forced}");
    }
    Ok(())
}
