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

#[test]
fn java_compiled_at_its_first_call_is_named() -> Result<()> {
    let test = "java_compiled_at_its_first_call_is_named";
    every_chain_is_as_logged(test, &["-Xcomp"], "sync", 3)
}

#[test]
fn java_compiled_without_inlining_is_named() -> Result<()> {
    let test = "java_compiled_without_inlining_is_named";
    let options = ["-Xcomp", "-XX:-Inline", "-XX:TieredStopAtLevel=1"];
    every_chain_is_as_logged(test, &options, "sync", 3)
}

/// By then the methods are inlined into each other.
#[test]
fn java_that_has_run_for_a_while_is_named() -> Result<()> {
    every_chain_is_as_logged("java_that_has_run_for_a_while_is_named", &[], "warm", 20)
}

#[test]
fn java_with_frame_pointers_is_named() -> Result<()> {
    let test = "java_with_frame_pointers_is_named";
    every_chain_is_as_logged(test, &["-XX:+PreserveFramePointer"], "warm", 5)
}

#[test]
fn java_that_is_being_compiled_is_named() -> Result<()> {
    let test = "java_that_is_being_compiled_is_named";
    every_chain_is_as_logged(test, &[], "compiling", 150)
}

#[test]
fn a_java_thread_is_named() -> Result<()> {
    every_chain_is_as_logged("a_java_thread_is_named", &[], "threads", 24)
}

/// Another class was loaded than the compiler had reckoned with.
#[test]
fn a_java_frame_that_goes_on_interpreted_is_named() -> Result<()> {
    let test = "a_java_frame_that_goes_on_interpreted_is_named";
    every_chain_is_as_logged(test, &[], "outdated", 1)
}

#[test]
fn a_java_that_starts_while_traced_is_named() -> Result<()> {
    let test = "a_java_that_starts_while_traced_is_named";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let tracer = Tracer::start_with(&[server.port()], &EVERY_STACK)?;
    let (_classes, mut program) = java::start(server.v4(), &[], "late", 3)?;
    let (pid, logged) = program.go()?;
    ensure_as_logged(&tracer.finish()?, pid, &logged)
}
