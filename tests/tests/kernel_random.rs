//! Random scripts: whatever processes do with sockets, the report says what the model says.

use anyhow::{Context, Result, ensure};
use connleak_tests::actor::FIRST;
use connleak_tests::difference::differences;
use connleak_tests::gate::{self, Need};
use connleak_tests::scene::Scene;
use connleak_tests::script::How;
use connleak_tests::share;
use connleak_tests::tracer::Tracer;
use connleak_tests::uring;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestError, TestRunner};

/// Operations over all scripts.
const OPERATIONS: usize = 10_000;
const SCRIPTS: u32 = 10;
/// More processes or sockets only make a failure harder to read.
const MOST_PROCESSES: usize = 8;
const MOST_SOCKETS: usize = 60;

#[derive(Clone, Copy, Debug)]
enum Act {
    Open(How),
    OpenV6,
    OpenV4Mapped,
    OpenRefused,
    Close,
    Abort,
    HalfClose,
    Dup,
    Pass,
    Fork,
    Exec,
    Exit,
    Kill,
    PeerClose,
    PeerReset,
}

/// An act, and whom and what it is about: indices into what lives then, so that a script stays
/// meaningful while it shrinks.
#[derive(Clone, Copy, Debug)]
struct Step {
    act: Act,
    actor: Index,
    other: Index,
    socket: Index,
}

fn act() -> impl Strategy<Value = Act> {
    // Before 5.12 an io-wq worker was a kernel thread of no process.
    let worker = uring::available().is_ok() && gate::kernel_version() >= (5, 12);
    prop_oneof![
        14 => Just(Act::Open(How::Connect)),
        4 => Just(Act::OpenV6),
        4 => Just(Act::OpenV4Mapped),
        3 => Just(Act::Open(How::NonBlocking)),
        2 => Just(Act::Open(How::Thread)),
        2 => Just(Act::Open(if uring::available().is_ok() { How::Uring } else { How::Connect })),
        2 => Just(Act::Open(if worker { How::UringAsync } else { How::Connect })),
        2 => Just(Act::Open(How::FastOpen)),
        2 => Just(Act::Open(How::SendTo)),
        2 => Just(Act::OpenRefused),
        18 => Just(Act::Close),
        4 => Just(Act::Abort),
        4 => Just(Act::HalfClose),
        8 => Just(Act::Dup),
        8 => Just(Act::Pass),
        4 => Just(Act::Fork),
        3 => Just(Act::Exec),
        2 => Just(Act::Exit),
        2 => Just(Act::Kill),
        5 => Just(Act::PeerClose),
        5 => Just(Act::PeerReset),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    (act(), any::<Index>(), any::<Index>(), any::<Index>()).prop_map(
        |(act, actor, other, socket)| Step {
            act,
            actor,
            other,
            socket,
        },
    )
}

/// Performs a step, or the nearest one that is possible now.
fn perform(scene: &mut Scene, step: &Step) -> Result<()> {
    let actors: Vec<String> = scene.model.processes.keys().cloned().collect();
    let actor = step.actor.get(&actors).as_str();
    let other = step.other.get(&actors).as_str();
    let held: Vec<u32> = scene.model.processes[actor].fds.keys().copied().collect();
    let with_peer: Vec<u32> = scene
        .model
        .sockets
        .iter()
        .filter(|(_, s)| s.peer_open)
        .map(|(id, _)| *id)
        .collect();
    let full = scene.model.sockets.len() >= MOST_SOCKETS;
    let (v4, v6, mapped) = (scene.peer.v4(), scene.peer.v6(), scene.peer.v4_mapped());
    let socket = |of: &[u32]| {
        if of.is_empty() {
            None
        } else {
            Some(*step.socket.get(of))
        }
    };
    match (step.act, socket(&held), socket(&with_peer)) {
        // What there is too much of ends instead.
        (Act::Open(_) | Act::OpenV6 | Act::OpenV4Mapped, Some(socket), _) if full => {
            scene.close(actor, socket)
        }
        (Act::Fork, _, _) if actors.len() >= MOST_PROCESSES => scene.exit(actor),
        (Act::Open(how), _, _) => scene.open(actor, how, v4).map(drop),
        (Act::OpenV6, _, _) => scene.open(actor, How::Connect, v6).map(drop),
        (Act::OpenV4Mapped, _, _) => scene.open(actor, How::Connect, mapped).map(drop),
        (Act::OpenRefused, _, _) => scene.open_refused(actor),
        (Act::Close, Some(socket), _) => scene.close(actor, socket),
        (Act::Abort, Some(socket), _) => scene.abort(actor, socket),
        (Act::HalfClose, Some(socket), _) => scene.half_close(actor, socket),
        (Act::Dup, Some(socket), _) => scene.dup(actor, socket),
        (Act::Pass, Some(socket), _) => scene.pass(actor, socket, other),
        (Act::Fork, _, _) => scene.fork(actor).map(drop),
        (Act::Exec, _, _) => scene.exec(
            actor,
            if step.other.index(2) == 0 {
                "renamed"
            } else {
                "again"
            },
        ),
        (Act::Exit, _, _) if actors.len() > 1 => scene.exit(actor),
        (Act::Kill, _, _) if actors.len() > 1 => scene.kill(actor),
        (Act::PeerClose, _, Some(socket)) => scene.peer_close(socket),
        (Act::PeerReset, _, Some(socket)) => scene.peer_reset(socket),
        _ => scene.open(actor, How::Connect, v4).map(drop),
    }
}

fn play(script: &[Step], traced: bool) -> Result<()> {
    let mut scene = Scene::new()?;
    let tracer = if traced {
        Some(Tracer::start(&scene.ports())?)
    } else {
        None
    };
    for (at, step) in script.iter().enumerate() {
        perform(&mut scene, step).with_context(|| format!("step {at}: {step:?}"))?;
    }
    scene.settle()?;
    if let Some(tracer) = tracer {
        let report = tracer.finish()?;
        let found = differences(&report, &scene.model, scene.peer.port())?;
        ensure!(
            found.is_empty(),
            "{} differences:\n{}",
            found.len(),
            found.join("\n")
        );
    }
    Ok(())
}

fn run_scripts(scripts: u32, steps: usize, traced: bool) -> Result<()> {
    let config = Config {
        cases: scripts,
        failure_persistence: None,
        // A script takes seconds: a smaller one is worth a minute, not an hour.
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&prop::collection::vec(step(), steps), |script| {
        play(&script, traced).map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    match outcome {
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, script)) => {
            let script: Vec<String> = script.iter().map(|s| format!("{s:?}")).collect();
            anyhow::bail!("{reason}\nof the script\n{}", script.join("\n"))
        }
        Err(error) => anyhow::bail!("{error}"),
    }
}

#[test]
fn the_kernel_agrees_with_the_model() -> Result<()> {
    if !gate::open("the_kernel_agrees_with_the_model", Need::Root) {
        return Ok(());
    }
    run_scripts(4, 300, false)
}

#[test]
fn ten_thousand_random_operations_make_no_difference() -> Result<()> {
    if !gate::open(
        "ten_thousand_random_operations_make_no_difference",
        Need::Bpf,
    ) {
        return Ok(());
    }
    let scripts = SCRIPTS.div_ceil(share::machines());
    let steps = OPERATIONS.div_ceil((scripts * share::machines()) as usize);
    run_scripts(scripts, steps, true)
}

#[test]
fn the_smallest_script_makes_no_difference() -> Result<()> {
    if !gate::open("the_smallest_script_makes_no_difference", Need::Bpf) {
        return Ok(());
    }
    let mut scene = Scene::new()?;
    let tracer = Tracer::start(&scene.ports())?;
    scene.open(FIRST, How::Connect, scene.peer.v4())?;
    scene.settle()?;
    let found = differences(&tracer.finish()?, &scene.model, scene.peer.port())?;
    ensure!(found.is_empty(), "{found:?}");
    Ok(())
}
