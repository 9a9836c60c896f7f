//! `cargo xtask test`: every test of the workspace, and one closing account of them.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, IsTerminal as _, stdout};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::setup::{self, Scope, Wording};
use crate::workspace::Workspace;
use crate::{build, cargo, step};

/// A reason that CI accepts: nothing but another kernel could have run the test.
const ACCEPTED_IN_CI: &str = "kernel of the host";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only the tests whose names contain this
    filter: Option<String>,
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    ignored: usize,
    /// Names, in the order they failed.
    failures: Vec<String>,
    broken: bool,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let began = Instant::now();
    setup::run(workspace, Scope::Tests, Wording::Changes)?;
    let connleak = build::run(workspace)?;
    let skips = workspace.root.join("target/test-skips.txt");
    fs::write(&skips, "").with_context(|| format!("failed to write {}", skips.display()))?;

    let mut tally = Tally::default();
    for packages in [
        // In release: the dependencies are compiled already, and timings are those that ship.
        &[
            "--release",
            "-p",
            "tracer-ebpf",
            "-p",
            "tracer-user",
            "-p",
            "connleak-tests",
            "-p",
            "connleak-fuzz",
        ][..],
        &["-p", "xtask"],
    ] {
        let mut command = cargo::command(workspace);
        command.arg("test").args(packages).arg("--no-fail-fast");
        command
            .env("CONNLEAK_BIN", &connleak)
            .env("CONNLEAK_PYTHON", workspace.python())
            .env("CONNLEAK_PYTHONS", workspace.pythons())
            .env("CONNLEAK_SKIPS", &skips);
        let mut compile = clone_of(&command);
        step::run("build the tests", compile.arg("--no-run"))?;
        command.arg("--quiet").args(&args.filter).arg("--");
        if stdout().is_terminal() {
            command.arg("--color=always");
        }
        let status = stream(&mut command, &mut tally)?;
        tally.broken |= !status.success() && tally.failed == 0;
    }
    let said = fs::read_to_string(&skips)
        .with_context(|| format!("failed to read {}", skips.display()))?;
    let skipped: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    Ok(account(&tally, &skipped, began))
}

fn clone_of(command: &Command) -> Command {
    let mut clone = Command::new(command.get_program());
    clone.args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        clone.current_dir(dir);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => clone.env(name, value),
            None => clone.env_remove(name),
        };
    }
    clone
}

/// Shows what cargo test prints as it comes, and counts its results.
fn stream(command: &mut Command, tally: &mut Tally) -> Result<ExitStatus> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to start cargo test")?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.context("failed to read the output of cargo test")?;
            println!("{line}");
            tally.read(&line);
        }
    }
    child.wait().context("failed to wait for cargo test")
}

impl Tally {
    fn read(&mut self, line: &str) {
        let line = line.trim();
        if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.failures.push(name.to_owned());
        }
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split(';') {
            let Some((number, what)) = count.trim().split_once(' ') else {
                continue;
            };
            let number = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// The closing lines: what failed, what was skipped and why, the totals.
fn account(tally: &Tally, skipped: &[&str], began: Instant) -> ExitCode {
    let in_ci = env::var("CI").is_ok_and(|ci| ci == "true");
    let refused: Vec<&&str> = skipped
        .iter()
        .filter(|skip| in_ci && !accepted(skip))
        .collect();
    println!();
    for name in &tally.failures {
        println!("FAILED: {name}");
    }
    for skip in skipped {
        println!("SKIPPED: {skip}");
    }
    for skip in &refused {
        println!("FAILED: skipped in CI: {skip}");
    }
    if tally.broken {
        println!("FAILED: a test program did not build or did not end by itself");
    }
    let failed = tally.failed + refused.len() + usize::from(tally.broken);
    println!(
        "test: {}: {} passed, {} failed, {} skipped, {} ignored in {} s",
        if failed == 0 { "ok" } else { "FAILED" },
        tally.passed.saturating_sub(skipped.len()),
        failed,
        skipped.len(),
        tally.ignored,
        began.elapsed().as_secs()
    );
    ExitCode::from(u8::from(failed > 0))
}

/// Lines read `<test>: <reason>`; a test's own name has `::` in it.
fn accepted(skip: &str) -> bool {
    skip.split_once(": ")
        .is_some_and(|(_, reason)| reason.starts_with(ACCEPTED_IN_CI))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_programs_add_up() {
        let mut tally = Tally::default();
        for line in [
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s",
            "---- table::a_row stdout ----",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
        ] {
            tally.read(line);
        }
        assert_eq!((tally.passed, tally.failed, tally.ignored), (7, 1, 1));
        assert_eq!(tally.failures, ["table::a_row"]);
    }

    #[test]
    fn ci_accepts_a_skip_only_for_the_kernel_of_the_host() {
        assert!(accepted(
            "connect::by_fentry: kernel of the host refuses fentry"
        ));
        assert!(!accepted("connect::by_fentry: no redis-server"));
        assert!(!accepted("kernel of the host"));
    }
}
