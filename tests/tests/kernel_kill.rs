//! A tracer that is killed leaves nothing in the kernel.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use connleak_tests::actor::{Actors, FIRST};
use connleak_tests::gate::{self, Need};
use connleak_tests::kernel_ids::{self, Ids};
use connleak_tests::peer::Peer;
use connleak_tests::script::{How, Op};
use connleak_tests::tracer::{Tracer, trace_arguments};
use connleak_tests::{place, wait};

fn wait_gone(ids: &Ids) -> Result<()> {
    let left = || -> Result<Ids> { Ok(kernel_ids::loaded()?.intersection(ids).copied().collect()) };
    // Freed after an RCU grace period.
    wait::until("the kernel frees what the tracer had", || {
        left().ok()?.is_empty().then_some(())
    })
    .with_context(|| format!("left: {:?}", left()))
}

#[test]
fn killed_while_tracing_it_leaves_no_program_map_or_link() -> Result<()> {
    if !gate::open(
        "killed_while_tracing_it_leaves_no_program_map_or_link",
        Need::Bpf,
    ) {
        return Ok(());
    }
    let peer = Peer::start()?;
    let tracer = Tracer::start(&[peer.port()])?;
    let mut actors = Actors::start()?;
    actors.order(
        FIRST,
        Op::Open {
            socket: 0,
            how: How::Connect,
            to: peer.v4(),
        },
    )?;
    let held = kernel_ids::held_by(tracer.pid());
    for kind in kernel_ids::Kind::ALL {
        ensure!(
            held.iter().any(|(k, _)| *k == kind),
            "a running tracer holds no {kind:?}: {held:?}"
        );
    }
    tracer.signal(libc::SIGKILL);
    tracer.ended()?;
    wait_gone(&held)
}

#[test]
fn killed_at_any_moment_of_its_start_it_leaves_nothing() -> Result<()> {
    if !gate::open(
        "killed_at_any_moment_of_its_start_it_leaves_nothing",
        Need::Bpf,
    ) {
        return Ok(());
    }
    let before = kernel_ids::loaded()?;
    let peer = Peer::start()?;
    // How long a start takes here, so that the moments spread over all of it.
    let started = std::time::Instant::now();
    drop(Tracer::start(&[peer.port()])?);
    let start = started.elapsed();
    const MOMENTS: u32 = 12;
    for moment in 0..MOMENTS {
        let mut command = Command::new(place::connleak()?);
        let tracer = Tracer::spawn(command.args(trace_arguments(&[peer.port()], "json")))?;
        // The moment is what is tested: no condition marks it. The jitter makes runs differ.
        let jitter = Duration::from_micros(u64::from(std::process::id()) * 37 % 5000);
        std::thread::sleep(start * moment / MOMENTS + jitter);
        tracer.signal(libc::SIGKILL);
        tracer.ended()?;
    }
    let left = || kernel_ids::left_behind(&before);
    wait::until("nothing is left behind", || {
        left().ok()?.is_empty().then_some(())
    })
    .with_context(|| format!("left: {:?}", left()))
}

#[test]
fn an_ordinary_end_leaves_nothing_either() -> Result<()> {
    if !gate::open("an_ordinary_end_leaves_nothing_either", Need::Bpf) {
        return Ok(());
    }
    let peer = Peer::start()?;
    let tracer = Tracer::start(&[peer.port()])?;
    let held = kernel_ids::held_by(tracer.pid());
    ensure!(!held.is_empty(), "a running tracer holds nothing");
    tracer.finish()?;
    wait_gone(&held)
}
