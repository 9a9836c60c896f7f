//! The plan, run from the first step to the verdict.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::process::{self, End, Finished};
use super::protocol::{
    Counts, FAMILY_PARAMETER, Outcome, PLAN_PARAMETER, PLAN_PATH, Plan, Record, Step, StepKind,
    TEST_BEGINS, TestRecord,
};
use super::{mounts, poweroff};

/// The host reads records here; the console is shared with the kernel, which writes where it likes.
const RECORDS_LINE: &str = "/dev/ttyS1";
/// Tests that cannot run here append `test: reason` to this file.
const SKIPS_PATH: &str = "/run/skips";
const LIST_TIME_LIMIT: Duration = Duration::from_secs(60);

/// Who brought the machine up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// This process, which then also mounts everything.
    Init,
    /// Another PID 1, which started this process as a service.
    Service,
}

/// Returns only when the machine could not be left.
pub fn run(role: Role) -> Result<()> {
    let counts = match run_plan(role) {
        Ok(counts) => counts,
        Err(e) => {
            // No verdict line: the host takes this for what it is, a broken machine.
            writeln!(std::io::stderr(), "guest_init: {e:#}")?;
            poweroff::drain(&std::io::stderr());
            return Err(poweroff::leave(2).into());
        }
    };
    writeln!(std::io::stderr(), "{counts}")?;
    poweroff::drain(&std::io::stderr());
    Err(poweroff::leave(counts.exit_code()).into())
}

struct Guest {
    plan: Plan,
    family: String,
    records: File,
    counts: Counts,
}

fn run_plan(role: Role) -> Result<Counts> {
    if role == Role::Init {
        for line in mounts::mount_all()? {
            writeln!(std::io::stderr(), "guest_init: {line}")?;
        }
        mounts::bring_loopback_up().context("failed to bring lo up")?;
        mounts::raise_file_limit().context("failed to raise the limit of open files")?;
    }
    let command_line = std::fs::read_to_string("/proc/cmdline")
        .context("failed to read the kernel's command line")?;
    let path = parameter(&command_line, PLAN_PARAMETER).unwrap_or(PLAN_PATH);
    let plan = std::fs::read(path).with_context(|| format!("failed to read the plan {path}"))?;
    let plan = serde_json::from_slice(&plan).context("failed to parse the plan")?;
    let records = File::options()
        .write(true)
        .open(RECORDS_LINE)
        .with_context(|| format!("failed to open the records line {RECORDS_LINE}"))?;
    let mut guest = Guest {
        plan,
        family: parameter(&command_line, FAMILY_PARAMETER)
            .unwrap_or("auto")
            .to_owned(),
        records,
        counts: Counts::default(),
    };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("failed to read the kernel's release")?;
    guest.send(&Record::Booted {
        kernel: kernel.trim().to_owned(),
        family: guest.family.clone(),
    })?;
    for step in guest.plan.steps.clone() {
        if step.family.as_ref().is_none_or(|of| *of == guest.family) {
            guest.step(&step)?;
        }
    }
    guest.send(&Record::Finished(guest.counts))?;
    poweroff::drain(&guest.records);
    Ok(guest.counts)
}

/// The value of a parameter, whose name ends with `=`.
fn parameter<'a>(command_line: &'a str, name: &str) -> Option<&'a str> {
    command_line
        .split_whitespace()
        .find_map(|word| word.strip_prefix(name))
}

impl Guest {
    fn step(&mut self, step: &Step) -> Result<()> {
        match step.kind {
            StepKind::TestBinary => self.test_binary(step),
            StepKind::Check => self.test(step, &step.name, &[]),
            StepKind::Capture => {
                let finished = self.command(step, &[]).and_then(|command| {
                    process::capture(command, seconds(step))
                        .with_context(|| format!("failed to run {}", step.argv[0]))
                });
                let (exit, output) = match finished {
                    Ok(Finished { end, output, .. }) => {
                        let code = match end {
                            End::Exited(code) => Some(code),
                            End::Killed(_) | End::TimedOut => None,
                        };
                        (code, String::from_utf8_lossy(&output).into_owned())
                    }
                    Err(e) => (None, format!("{e:#}")),
                };
                self.send(&Record::Captured {
                    step: step.name.clone(),
                    exit,
                    output,
                })
            }
        }
    }

    /// One process a test: what hangs or leaves servers behind spoils no other test.
    fn test_binary(&mut self, step: &Step) -> Result<()> {
        let listed = self.list(step, &["--list"]).and_then(|all| {
            let ignored = self.list(step, &["--list", "--ignored"])?;
            Ok((all, ignored.into_iter().collect::<HashSet<_>>()))
        });
        let (tests, ignored) = match listed {
            Ok(lists) => lists,
            Err(e) => {
                return self.conclude(TestRecord {
                    name: step.name.clone(),
                    outcome: Outcome::Failed,
                    reason: Some(format!("{e:#}")),
                    output: String::new(),
                    duration_ms: 0,
                });
            }
        };
        for test in tests {
            if let Some(only) = &self.plan.only
                && !format!("{}::{test}", step.name).contains(only.as_str())
            {
                continue;
            }
            let name = format!("{}::{test}", step.name);
            if ignored.contains(&test) {
                self.conclude(TestRecord {
                    name,
                    outcome: Outcome::Skipped,
                    reason: Some("marked #[ignore]".to_owned()),
                    output: String::new(),
                    duration_ms: 0,
                })?;
                continue;
            }
            self.test(
                step,
                &name,
                &["--exact", &test, "--test-threads=1", "--nocapture"],
            )?;
        }
        Ok(())
    }

    fn list(&self, step: &Step, arguments: &[&str]) -> Result<Vec<String>> {
        let finished = process::capture(self.command(step, arguments)?, LIST_TIME_LIMIT)
            .with_context(|| format!("failed to run {}", step.name))?;
        anyhow::ensure!(
            finished.end == End::Exited(0),
            "failed to list the tests of {}: {}",
            step.name,
            finished.end,
        );
        Ok(listed_tests(&String::from_utf8_lossy(&finished.output)))
    }

    fn test(&mut self, step: &Step, name: &str, arguments: &[&str]) -> Result<()> {
        writeln!(std::io::stderr(), "{TEST_BEGINS}{name}")?;
        drop(std::fs::remove_file(SKIPS_PATH));
        let finished = self.command(step, arguments).and_then(|command| {
            process::run(command, seconds(step))
                .with_context(|| format!("failed to run {}", step.argv[0]))
        });
        let record = match finished {
            Ok(finished) => test_record(name, &finished, std::fs::read_to_string(SKIPS_PATH).ok()),
            Err(e) => TestRecord {
                name: name.to_owned(),
                outcome: Outcome::Failed,
                reason: Some(format!("{e:#}")),
                output: String::new(),
                duration_ms: 0,
            },
        };
        self.conclude(record)
    }

    fn command(&self, step: &Step, arguments: &[&str]) -> Result<Command> {
        let [program, first @ ..] = step.argv.as_slice() else {
            anyhow::bail!("failed to run step {}: it has no command", step.name);
        };
        let mut command = Command::new(program);
        command
            .args(
                first
                    .iter()
                    .map(|word| word.replace("{family}", &self.family)),
            )
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8")
            .envs(&self.plan.env)
            .env("CONNLEAK_PROBES", &self.family)
            .env("CONNLEAK_SKIPS", SKIPS_PATH);
        Ok(command)
    }

    fn conclude(&mut self, record: TestRecord) -> Result<()> {
        match record.outcome {
            Outcome::Passed => self.counts.passed += 1,
            Outcome::Failed => self.counts.failed += 1,
            Outcome::Skipped => self.counts.skipped += 1,
        }
        self.send(&Record::Test(record))
    }

    fn send(&mut self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        self.records
            .write_all(&line)
            .context("failed to write a record")
    }
}

fn seconds(step: &Step) -> Duration {
    Duration::from_secs(step.time_limit_s)
}

/// What `--list` prints: `name: test`, an empty line, a sum.
fn listed_tests(listing: &str) -> Vec<String> {
    listing
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect()
}

fn test_record(name: &str, finished: &Finished, skips: Option<String>) -> TestRecord {
    let skip = skips
        .as_deref()
        .and_then(|lines| lines.lines().next())
        .map(|line| line.split_once(": ").map_or(line, |(_, reason)| reason));
    let (outcome, reason) = match (finished.end, skip) {
        (End::Exited(0), None) => (Outcome::Passed, None),
        (End::Exited(0), Some(reason)) => (Outcome::Skipped, Some(reason.to_owned())),
        (end, _) => (Outcome::Failed, Some(end.to_string())),
    };
    TestRecord {
        name: name.to_owned(),
        output: match outcome {
            Outcome::Failed => String::from_utf8_lossy(&finished.output).into_owned(),
            Outcome::Passed | Outcome::Skipped => String::new(),
        },
        outcome,
        reason,
        duration_ms: finished.duration.as_millis() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(end: End) -> Finished {
        Finished {
            end,
            output: b"last words".to_vec(),
            duration: Duration::from_millis(7),
        }
    }

    #[test]
    fn a_parameter_is_a_word_of_the_command_line() {
        let line = "console=ttyS0 connleak.family=kprobe quiet";
        assert_eq!(parameter(line, FAMILY_PARAMETER), Some("kprobe"));
        assert_eq!(parameter(line, PLAN_PARAMETER), None);
    }

    #[test]
    fn listing_yields_tests_and_neither_benchmarks_nor_the_sum() {
        let listing = "a::b: test\nc: test\nd: benchmark\n\n2 tests, 1 benchmark\n";
        assert_eq!(listed_tests(listing), ["a::b", "c"]);
    }

    #[test]
    fn a_test_that_names_a_skip_reason_is_skipped() {
        let record = test_record(
            "k::t",
            &finished(End::Exited(0)),
            Some("t: needs 5.15: no task storage\n".to_owned()),
        );
        assert_eq!(record.outcome, Outcome::Skipped);
        assert_eq!(
            record.reason.as_deref(),
            Some("needs 5.15: no task storage")
        );
    }

    #[test]
    fn a_failing_test_is_failed_even_if_it_named_a_skip_reason() {
        let record = test_record(
            "k::t",
            &finished(End::Exited(101)),
            Some("t: x\n".to_owned()),
        );
        assert_eq!(record.outcome, Outcome::Failed);
        assert_eq!(record.output, "last words");
    }

    #[test]
    fn a_test_over_its_limit_is_failed() {
        let record = test_record("k::t", &finished(End::TimedOut), None);
        assert_eq!(record.outcome, Outcome::Failed);
        assert_eq!(record.reason.as_deref(), Some("timed out"));
    }
}
