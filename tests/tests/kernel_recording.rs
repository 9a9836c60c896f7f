//! Recordings: a replay says what the trace said, and a broken one is refused with its offset.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use connleak_tests::actor::{Actors, FIRST};
use connleak_tests::gate::{self, Need};
use connleak_tests::peer::Peer;
use connleak_tests::report::Report;
use connleak_tests::script::{How, Op};
use connleak_tests::tracer::{self, Ended, Tracer};
use tempfile::TempDir;

/// A recording of some opens and closes, and the report of the run that wrote it.
fn recorded(folder: &TempDir) -> Result<(std::path::PathBuf, Report, u32)> {
    let path = folder.path().join("recording");
    let peer = Peer::start()?;
    let file = path.to_string_lossy().into_owned();
    let tracer = Tracer::start_with(&[peer.port()], &["--record", &file])?;
    let mut actors = Actors::start()?;
    for socket in 0..8 {
        let to = if socket % 2 == 0 {
            peer.v4()
        } else {
            peer.v6()
        };
        let answer = actors.order(
            FIRST,
            Op::Open {
                socket,
                how: How::Connect,
                to,
            },
        )?;
        if socket < 3 {
            actors.order(FIRST, Op::Close { socket })?;
            peer.close(answer.local.context("a local end")?)?;
        }
    }
    let report = tracer.finish()?;
    Ok((path, report, actors.pid(FIRST).unwrap_or(0)))
}

fn replay(path: &Path) -> Result<Ended> {
    tracer::run(&["replay", &path.to_string_lossy(), "-o", "json"])
}

#[test]
fn a_replay_says_what_the_trace_said() -> Result<()> {
    if !gate::open("a_replay_says_what_the_trace_said", Need::Bpf) {
        return Ok(());
    }
    let folder = TempDir::new()?;
    let (path, traced, pid) = recorded(&folder)?;
    let ended = replay(&path)?;
    ensure!(ended.status.success(), "{ended:?}");
    let replayed = Report::read(&ended.stdout)?;
    let of = |report: &Report| -> Vec<(u64, Option<u64>, Option<u64>)> {
        report
            .of(pid)
            .map(|o| (o.outstanding, o.opened, o.closed))
            .collect()
    };
    ensure!(
        of(&traced) == [(5, Some(8), Some(3))],
        "{:?}",
        traced.openers
    );
    ensure!(of(&replayed) == of(&traced), "{:?}", replayed.openers);
    ensure!(
        replayed.kernel == traced.kernel && replayed.ports == traced.ports,
        "{replayed:?}"
    );
    Ok(())
}

#[test]
fn a_broken_recording_is_refused_with_the_byte_offset() -> Result<()> {
    if !gate::open(
        "a_broken_recording_is_refused_with_the_byte_offset",
        Need::Bpf,
    ) {
        return Ok(());
    }
    let folder = TempDir::new()?;
    let (path, ..) = recorded(&folder)?;
    let whole = std::fs::read(&path)?;
    let broken = folder.path().join("broken");
    for length in [
        0,
        1,
        7,
        whole.len() / 3,
        whole.len() / 2 + 1,
        whole.len() - 1,
    ] {
        std::fs::write(&broken, &whole[..length])?;
        let ended = replay(&broken)?;
        ensure!(
            ended.status.code() == Some(2),
            "{length} of {} bytes: {ended:?}",
            whole.len()
        );
        ensure_offset(&ended)?;
    }
    for at in (0..whole.len()).step_by(whole.len() / 23 + 1) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        std::fs::write(&broken, &bytes)?;
        let ended = replay(&broken)?;
        // A flipped byte may be one of a name, which no reader can know.
        match ended.status.code() {
            Some(0) => drop(Report::read(&ended.stdout)?),
            Some(2) => ensure_offset(&ended)?,
            _ => anyhow::bail!("byte {at} flipped: {ended:?}"),
        }
    }
    Ok(())
}

fn ensure_offset(ended: &Ended) -> Result<()> {
    let said = ended.stderr.join("\n");
    ensure!(!said.contains("panicked"), "{said}");
    ensure!(said.contains("byte"), "no byte offset in {said:?}");
    Ok(())
}
