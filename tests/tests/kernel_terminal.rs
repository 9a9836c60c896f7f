//! Names and command lines are written by others: no control character of theirs reaches a terminal.

use std::process::Command;

use anyhow::{Result, ensure};
use connleak_tests::actor::{Actors, FIRST};
use connleak_tests::gate::{self, Need};
use connleak_tests::peer::Peer;
use connleak_tests::place;
use connleak_tests::pty::OnTerminal;
use connleak_tests::script::{How, Op};
use connleak_tests::tracer::{Tracer, trace_arguments};

/// Title change, bell, colours, line feed, and a C1 control in UTF-8.
const NAME: &[u8] = b"evil\x1b[31m\x07\r\nx";
const ARGUMENT: &str = "arg\u{1b}]0;pwned\u{7}\u{1b}[2J\u{9b}1m\nline";

struct Scene {
    peer: Peer,
    actors: Actors,
}

/// A process with a hostile name and command line that holds one connection.
fn scene() -> Result<Scene> {
    let peer = Peer::start()?;
    let actors = Actors::start_with(&[ARGUMENT])?;
    Ok(Scene { peer, actors })
}

fn connect(scene: &mut Scene) -> Result<()> {
    scene.actors.order(FIRST, Op::Name { bytes: NAME.into() })?;
    scene.actors.order(
        FIRST,
        Op::Open {
            socket: 0,
            how: How::Connect,
            to: scene.peer.v4(),
        },
    )?;
    scene.peer.wait_accepted(1)
}

#[test]
fn a_table_on_a_terminal_carries_no_foreign_control_character() -> Result<()> {
    if !gate::open(
        "a_table_on_a_terminal_carries_no_foreign_control_character",
        Need::Bpf,
    ) {
        return Ok(());
    }
    let mut scene = scene()?;
    let mut command = Command::new(place::connleak()?);
    let tracer = OnTerminal::spawn(command.args(trace_arguments(&[scene.peer.port()], "table")))?;
    tracer.wait_for("tracing :")?;
    connect(&mut scene)?;
    // Live on a terminal: the opener shows without the end of the run.
    tracer.wait_for("evil")?;
    let bytes = tracer.finish()?;
    let shown = String::from_utf8_lossy(&bytes);
    for foreign in [
        "\u{1b}[31m\u{7}",
        "\u{1b}]",
        "\u{7}",
        "\u{9b}",
        "evil\u{1b}",
        "arg\u{1b}",
    ] {
        ensure!(!shown.contains(foreign), "{foreign:?} in {shown:?}");
    }
    // NO raw C1 byte either; in UTF-8 0x9b is only ever a continuation byte.
    ensure!(std::str::from_utf8(&bytes).is_ok(), "not UTF-8: {shown:?}");
    Ok(())
}

#[test]
fn a_table_in_a_pipe_carries_no_control_character_but_line_feeds() -> Result<()> {
    if !gate::open(
        "a_table_in_a_pipe_carries_no_control_character_but_line_feeds",
        Need::Bpf,
    ) {
        return Ok(());
    }
    let mut scene = scene()?;
    connect(&mut scene)?;
    let mut command = Command::new(place::connleak()?);
    let arguments = trace_arguments(&[scene.peer.port()], "table");
    let ended = Tracer::spawn(command.args(arguments).args(["--for", "1s"]))?.ended()?;
    ensure!(ended.status.success(), "{ended:?}");
    let table = String::from_utf8(ended.stdout)?;
    let mut words = ended.stderr;
    words.push(table.replace('\n', " "));
    for text in &words {
        ensure!(!text.chars().any(char::is_control), "{text:?}");
    }
    ensure!(table.contains("evil"), "{table}");
    Ok(())
}

#[test]
fn json_keeps_the_name_and_escapes_it() -> Result<()> {
    if !gate::open("json_keeps_the_name_and_escapes_it", Need::Bpf) {
        return Ok(());
    }
    let mut scene = scene()?;
    let tracer = Tracer::start(&[scene.peer.port()])?;
    connect(&mut scene)?;
    let pid = scene.actors.pid(FIRST).unwrap_or(0);
    tracer.signal(libc::SIGINT);
    let ended = tracer.ended()?;
    let raw = String::from_utf8(ended.stdout)?;
    ensure!(!raw.chars().any(|c| c.is_control() && c != '\n'), "{raw:?}");
    let report = connleak_tests::report::Report::read(raw.as_bytes())?;
    let row = report.of(pid).next();
    let name = row.and_then(|o| o.name.clone()).unwrap_or_default();
    ensure!(name.as_bytes() == NAME, "{name:?}");
    ensure!(
        row.is_some_and(|o| o.cmdline.iter().any(|a| a == ARGUMENT)),
        "{row:?}"
    );
    Ok(())
}
