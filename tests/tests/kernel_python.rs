//! Python stacks: every chain is the one that the program itself saw at its connect.

use anyhow::{Context, Result, ensure};
use connleak_tests::gate::{self, Need};
use connleak_tests::python::{self, Chains, Python};
use connleak_tests::report::{FrameKind, Report, StackGroup};
use connleak_tests::server::RedisServer;
use connleak_tests::tracer::Tracer;

/// Sampling begins beyond this.
const EVERY_STACK: [&str; 2] = ["--stacks-per-second", "1000000"];

struct Run {
    /// The interpreter, for messages.
    name: String,
    pid: u32,
    logged: Chains,
}

/// Runs the program under every Python, all of them up before tracing starts.
fn traced(way: &str, count: u32) -> Result<(Report, Vec<Run>)> {
    let server = RedisServer::start()?;
    let mut programs = Vec::new();
    for python in python::interpreters()? {
        let program =
            Python::start(&python, server.v4(), way, count).with_context(|| python.name.clone())?;
        programs.push((python.name, program));
    }
    let tracer = Tracer::start_with(&[server.port()], &EVERY_STACK)?;
    let mut runs = Vec::new();
    for (name, program) in &mut programs {
        let (pid, logged) = program.go().with_context(|| name.clone())?;
        runs.push(Run {
            name: name.clone(),
            pid,
            logged,
        });
    }
    Ok((tracer.finish()?, runs))
}

/// The Python frames of a group as the program logs them: without the class.
fn chain(group: &StackGroup) -> Vec<String> {
    let frames = group.frames.iter();
    frames
        .filter(|frame| frame.kind == FrameKind::Python)
        .map(|frame| {
            let name = frame.function.as_deref().unwrap_or("?");
            let plain = name.rsplit('.').next().unwrap_or(name);
            format!("{plain}:{}", frame.line.unwrap_or(0))
        })
        .collect()
}

fn ensure_as_logged(report: &Report, run: &Run) -> Result<()> {
    let mut seen = Chains::new();
    for group in report.of(run.pid).flat_map(|opener| &opener.stacks) {
        // On a slow machine the C frames may be left out; the Python frames never are.
        let note = group.note.as_deref().unwrap_or_default();
        ensure!(
            note.is_empty() || note.starts_with("no native frames: too many"),
            "{}: {note:?}",
            run.name
        );
        *seen.entry(chain(group)).or_default() += group.outstanding;
    }
    ensure!(
        seen == run.logged,
        "{}: the report has {seen:#?}, the program logged {:#?}",
        run.name,
        run.logged
    );
    Ok(())
}

fn every_chain_is_as_logged(test: &str, way: &str, count: u32) -> Result<()> {
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let (report, runs) = traced(way, count)?;
    if runs.is_empty() {
        gate::skip(test, "there is no CPython 3.8 or later");
    }
    for run in &runs {
        ensure_as_logged(&report, run)?;
    }
    Ok(())
}

#[test]
fn every_python_is_named_in_synchronous_code() -> Result<()> {
    every_chain_is_as_logged("every_python_is_named_in_synchronous_code", "sync", 12)
}

#[test]
fn every_python_is_named_in_threads() -> Result<()> {
    every_chain_is_as_logged("every_python_is_named_in_threads", "threads", 12)
}

#[test]
fn five_hundred_connects_of_a_busy_asyncio_program_are_all_right() -> Result<()> {
    every_chain_is_as_logged(
        "five_hundred_connects_of_a_busy_asyncio_program_are_all_right",
        "asyncio",
        500,
    )
}

#[test]
fn a_forked_child_is_named_from_its_first_connect() -> Result<()> {
    every_chain_is_as_logged("a_forked_child_is_named_from_its_first_connect", "fork", 3)
}

#[test]
fn a_python_that_starts_while_traced_is_named_within_a_second() -> Result<()> {
    let test = "a_python_that_starts_while_traced_is_named_within_a_second";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let tracer = Tracer::start_with(&[server.port()], &EVERY_STACK)?;
    let mut programs = Vec::new();
    for python in python::interpreters()? {
        // It waits a second before it connects.
        let program = Python::start(&python, server.v4(), "late", 3)?;
        programs.push((python.name, program));
    }
    let mut runs = Vec::new();
    for (name, program) in &mut programs {
        let (pid, logged) = program.go()?;
        runs.push(Run {
            name: name.clone(),
            pid,
            logged,
        });
    }
    let report = tracer.finish()?;
    for run in &runs {
        ensure_as_logged(&report, run)?;
    }
    Ok(())
}

/// `main -> handle_order -> get_client -> redis-py`, reported at `get_client`.
fn redis_py_is_reported_at_its_caller(test: &str, way: &str) -> Result<()> {
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let (report, runs) = traced(way, 5)?;
    for run in &runs {
        let groups: Vec<_> = report.of(run.pid).flat_map(|o| &o.stacks).collect();
        ensure!(groups.len() == 1, "{}: {groups:#?}", run.name);
        let group = groups[0];
        ensure!(group.note.is_none(), "{}: {:?}", run.name, group.note);
        let site = group.site.as_ref().context("a site")?;
        let function = site.function.as_deref().unwrap_or_default();
        ensure!(function.ends_with("get_client"), "{}: {site:?}", run.name);
        let file = site.file.as_deref().unwrap_or_default();
        ensure!(file.ends_with("python_frames.py"), "{}: {site:?}", run.name);
        let chain = chain(group);
        let mut rest = chain.iter();
        for name in [
            "get_client:",
            "handle_order:",
            "redis_py",
            "main:",
            "<module>:",
        ] {
            rest.find(|function| function.starts_with(name))
                .with_context(|| format!("{}: no {name} at its place in {chain:?}", run.name))?;
        }
    }
    Ok(())
}

#[test]
fn redis_py_is_reported_where_it_was_called() -> Result<()> {
    redis_py_is_reported_at_its_caller("redis_py_is_reported_where_it_was_called", "redis")
}

#[test]
fn asyncio_redis_py_is_reported_through_its_await_chain() -> Result<()> {
    redis_py_is_reported_at_its_caller(
        "asyncio_redis_py_is_reported_through_its_await_chain",
        "redis-asyncio",
    )
}
