//! `cargo xtask fuzz`: mutated inputs against the parsers of hostile bytes, led by coverage.

pub(crate) mod compiler;
mod seeds;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, Scope, Wording};
use crate::workspace::Workspace;

/// Of the whole process, libFuzzer and its corpus too; what one input may allocate is bounded by
/// tests/fuzz/src/bounded.rs.
const MEMORY_MAX_MIB: u32 = 1024;
const INPUT_MAX_BYTES: u32 = 64 << 10;
/// An input that takes so long would hold up every other process's stacks.
const INPUT_MAX_SECONDS: u32 = 5;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this target
    target: Option<String>,
    /// How long each target runs; as many run at once as there are processors
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

/// Where a run finds and leaves its inputs.
struct Inputs {
    /// Kept from run to run, on this machine.
    corpus: PathBuf,
    /// What broke a target.
    broken: PathBuf,
    /// What is checked in.
    kept: [PathBuf; 2],
}

struct Outcome {
    failed: bool,
    /// libFuzzer's own last words.
    said: String,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let began = Instant::now();
    setup::run(workspace, Scope::Tests, Wording::Changes)?;
    let fuzzer = compiler::build_fuzzer(workspace)?;
    let known = targets(workspace)?;
    let targets = match &args.target {
        Some(target) if known.contains(target) => vec![target.clone()],
        Some(target) => bail!(
            "failed to find target {target}; there are {}",
            known.join(", ")
        ),
        None => known,
    };
    let fuzz = workspace.root.join("tests/fuzz");
    let inputs = Inputs {
        corpus: workspace.cache.join("fuzz"),
        broken: workspace.root.join("target/fuzz"),
        kept: ["seeds", "regressions"].map(|kept| fuzz.join(kept)),
    };
    seeds::write(workspace, &inputs.corpus)?;
    println!("fuzz: built in {} s", began.elapsed().as_secs());
    let mut failed = 0;
    let processors = thread::available_parallelism().map_or(1, usize::from);
    for group in targets.chunks(processors) {
        let running: Vec<_> = group
            .iter()
            .map(|target| {
                let mut command = inputs.command(&fuzzer, target, args.seconds)?;
                Ok((target, thread::spawn(move || outcome(&mut command))))
            })
            .collect::<Result<_>>()?;
        for (target, thread) in running {
            let outcome = thread.join().ok().context("a fuzzing thread panicked")??;
            let verdict = if outcome.failed { "FAILED" } else { "ok" };
            println!("fuzz: {target:<14} {verdict} {}", outcome.said);
            if outcome.failed {
                failed += 1;
                println!(
                    "fuzz: what broke it is in {}: mend it, and keep it in tests/fuzz/regressions/{target}",
                    inputs.broken.display()
                );
            }
        }
    }
    println!(
        "fuzz: {} passed, {failed} failed, in {} s",
        targets.len() - failed,
        began.elapsed().as_secs()
    );
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// In the order of the list in tests/fuzz/src/lib.rs, which is the only one.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let path = workspace.root.join("tests/fuzz/src/lib.rs");
    let text =
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let name = |line: &str| {
        let (name, _) = line.trim().strip_prefix("(\"")?.split_once('"')?;
        Some(name.to_owned())
    };
    let names: Vec<String> = text.lines().filter_map(name).collect();
    if names.is_empty() {
        bail!("failed to find a target in {}", path.display());
    }
    Ok(names)
}

impl Inputs {
    fn command(&self, fuzzer: &Path, target: &str, seconds: u32) -> Result<Command> {
        let corpus = self.corpus.join(target);
        for dir in [&corpus, &self.broken] {
            fs::create_dir_all(dir).with_context(|| format!("failed to make {}", dir.display()))?;
        }
        let mut command = Command::new(fuzzer);
        command
            .env("CONNLEAK_FUZZ_TARGET", target)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-rss_limit_mb={MEMORY_MAX_MIB}"))
            .arg(format!("-max_len={INPUT_MAX_BYTES}"))
            .arg(format!("-timeout={INPUT_MAX_SECONDS}"))
            .arg(format!(
                "-artifact_prefix={}/{target}-",
                self.broken.display()
            ))
            // What is found goes into the first folder.
            .arg(corpus)
            .args(
                self.kept
                    .iter()
                    .map(|dir| dir.join(target))
                    .filter(|dir| dir.is_dir()),
            )
            .stdin(Stdio::null());
        Ok(command)
    }
}

fn outcome(command: &mut Command) -> Result<Outcome> {
    let output = command.output().context("failed to start the fuzzer")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let failed = !output.status.success();
    if failed {
        eprintln!("{said}");
    }
    let is_last = |line: &&str| line.starts_with("Done") || line.contains("ERROR");
    Ok(Outcome {
        failed,
        said: said.lines().rfind(is_last).unwrap_or_default().to_owned(),
    })
}
