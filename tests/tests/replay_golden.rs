//! Replays of recorded files: what they print is known to the letter. They need no root.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use connleak_tests::{report::Report, tracer};

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

/// Replays with `text` as the file of site rules.
fn replay_with_rules(text: &str) -> Result<(tracer::Ended, String)> {
    let dir = tempfile::tempdir()?;
    let rules = dir.path().join("sites.toml");
    std::fs::write(&rules, text)?;
    let rules = rules.to_string_lossy().into_owned();
    let recording = here("fixtures/leaky_pool.rec");
    let recording = recording.to_string_lossy();
    let ended = tracer::run(&["replay", &recording, "-o", "json", "--config", &rules])?;
    Ok((ended, rules))
}

#[test]
fn a_site_rule_moves_the_site_to_the_caller() -> Result<()> {
    let (ended, _) = replay_with_rules(
        "[[site]]\nsubject = \"function\"\npattern = \"get_cl*\"\n\n\
         [[site]]\nsubject = \"function\"\npattern = \"fill_pool\"\napplication = true\n",
    )?;
    ensure!(ended.status.success(), "{ended:?}");
    let report = Report::read(&ended.stdout)?;
    let mut sites: Vec<_> = report
        .openers
        .iter()
        .flat_map(|opener| &opener.stacks)
        .filter_map(|stack| stack.site.as_ref()?.function.as_deref())
        .collect();
    sites.sort_unstable();
    ensure!(sites == ["fill_pool", "poll_ticks"], "{sites:?}");
    Ok(())
}

#[test]
fn a_bad_site_rule_is_refused_with_file_and_line() -> Result<()> {
    for (text, line) in [
        ("[[site]]\nsubject = \"file\"\npattern = \"*\"\n", 3),
        ("[[site]]\nsubject = \"line\"\npattern = \"x\"\n", 2),
        ("\n[[site]]\nsubject = \"file\"\npatern = \"x\"\n", 4),
    ] {
        let (ended, rules) = replay_with_rules(text)?;
        ensure!(ended.status.code() == Some(2), "{ended:?}");
        ensure!(ended.stdout.is_empty(), "{ended:?}");
        let place = format!("{rules}:{line}: ");
        ensure!(
            ended.stderr.len() == 1 && ended.stderr[0].contains(&place),
            "{place}: {:?}",
            ended.stderr
        );
    }
    Ok(())
}
