//! Java stacks: every chain is the one that the program itself saw at its connect.

use anyhow::{Result, ensure};
use connleak_tests::chains::Chains;
use connleak_tests::gate::{self, Need};
use connleak_tests::java;
use connleak_tests::report::{FrameKind, Report, StackGroup};
use connleak_tests::server::RedisServer;
use connleak_tests::tracer::Tracer;

/// Sampling begins beyond this.
const EVERY_STACK: [&str; 2] = ["--stacks-per-second", "1000000"];
/// What Java ships with: its frames are there too, and another JDK has others.
const LIBRARY: [&str; 3] = ["java.", "jdk.", "sun."];

/// The program is up before tracing starts, and connects when it has.
fn traced(options: &[&str], way: &str, count: u32) -> Result<(Report, u32, Chains)> {
    let server = RedisServer::start()?;
    let (_classes, mut program) = java::start(server.v4(), options, way, count)?;
    let tracer = Tracer::start_with(&[server.port()], &EVERY_STACK)?;
    let (pid, logged) = program.go()?;
    Ok((tracer.finish()?, pid, logged))
}

/// The program's own Java frames of a group, as it logs them.
fn chain(group: &StackGroup) -> Vec<String> {
    let frames = group.frames.iter();
    frames
        .filter(|frame| frame.kind == FrameKind::Java)
        .map(|frame| {
            let name = frame.function.as_deref().unwrap_or("?");
            format!("{name}:{}", frame.line.unwrap_or(0))
        })
        .filter(|frame| !LIBRARY.iter().any(|library| frame.starts_with(library)))
        .collect()
}

fn ensure_as_logged(report: &Report, pid: u32, logged: &Chains) -> Result<()> {
    let mut seen = Chains::new();
    for group in report.of(pid).flat_map(|opener| &opener.stacks) {
        ensure!(group.note.is_none(), "{:?}", group.note);
        *seen.entry(chain(group)).or_default() += group.outstanding;
    }
    ensure!(
        seen == *logged,
        "the report has {seen:#?}, the program logged {logged:#?}"
    );
    Ok(())
}

fn every_chain_is_as_logged(test: &str, options: &[&str], way: &str, count: u32) -> Result<()> {
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let (report, pid, logged) = traced(options, way, count)?;
    ensure_as_logged(&report, pid, &logged)
}

#[test]
fn interpreted_java_is_named() -> Result<()> {
    every_chain_is_as_logged("interpreted_java_is_named", &["-Xint"], "sync", 3)
}

#[test]
fn java_at_its_start_is_named() -> Result<()> {
    every_chain_is_as_logged("java_at_its_start_is_named", &[], "sync", 3)
}
