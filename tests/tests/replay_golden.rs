//! Replays of recorded files: what they print is known to the letter. They need no root.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use connleak_tests::tracer;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Holds what a replay prints against `golden`; `CONNLEAK_GOLDEN=write` makes it the golden one.
fn ensure_golden(arguments: &[&str], golden: &str) -> Result<()> {
    let recording = here("fixtures/leaky_pool.rec");
    let recording = recording.to_string_lossy();
    let mut all = vec!["replay", &*recording];
    all.extend(arguments);
    let ended = tracer::run(&all)?;
    ensure!(ended.status.success(), "{ended:?}");
    let printed = String::from_utf8(ended.stdout)?;
    let path = here("golden").join(golden);
    if std::env::var_os("CONNLEAK_GOLDEN").is_some_and(|value| value == "write") {
        return Ok(std::fs::write(&path, printed)?);
    }
    let expected = std::fs::read_to_string(&path)
        .with_context(|| format!("failed to read golden file {}", path.display()))?;
    let differs = printed
        .lines()
        .zip(expected.lines())
        .position(|(printed, expected)| printed != expected);
    ensure!(
        printed == expected,
        "{golden} differs at line {:?}; it printed:\n{printed}",
        differs.map(|line| line + 1)
    );
    Ok(())
}

#[test]
fn a_replay_prints_the_golden_report() -> Result<()> {
    ensure_golden(&["-o", "json"], "leaky_pool.json")
}

#[test]
fn a_replay_prints_the_golden_table() -> Result<()> {
    ensure_golden(&["-o", "table"], "leaky_pool.txt")?;
    ensure_golden(&["--sockets"], "leaky_pool_sockets.txt")
}

#[test]
fn what_is_no_recording_is_refused_in_one_line() -> Result<()> {
    for path in ["/nonexistent/recording", "/dev/zero", "/proc/version", "/"] {
        let ended = tracer::run(&["replay", path])?;
        ensure!(ended.status.code() == Some(2), "{path}: {ended:?}");
        ensure!(ended.stdout.is_empty(), "{path}: {ended:?}");
        ensure!(
            ended.stderr.len() == 1 && ended.stderr[0].contains(path),
            "{path}: {:?}",
            ended.stderr
        );
    }
    Ok(())
}
