//! Python stacks: every chain is the one that the program itself saw at its connect.

use anyhow::{Context, Result, ensure};
use connleak_tests::chains::{ChainLogger, Chains, Dialect, ensure_same};
use connleak_tests::gate::{self, Need};
use connleak_tests::python::{self, Interpreter};
use connleak_tests::report::{FrameKind, Report};
use connleak_tests::server::RedisServer;
use connleak_tests::tracer::{EVERY_STACK, Tracer};

/// Programs log names without the class. On a slow machine the C frames may be left out; the Python
/// frames never are.
const PYTHON: Dialect = Dialect {
    kind: FrameKind::Python,
    name: |name| Some(name.rsplit('.').next().unwrap_or(name).to_owned()),
    notes: &["no native frames: too many"],
};

struct Run {
    /// The interpreter, for messages.
    name: String,
    pid: u32,
    logged: Chains,
}

/// Runs the program under every Python.
fn traced(way: &str, count: u32) -> Result<(Report, Vec<Run>)> {
    traced_under(python::interpreters()?, way, count)
}

/// All of them are up before tracing starts.
fn traced_under(pythons: Vec<Interpreter>, way: &str, count: u32) -> Result<(Report, Vec<Run>)> {
    let server = RedisServer::start()?;
    let mut programs = Vec::new();
    for python in pythons {
        let program =
            python::start(&python, server.v4(), way, count).with_context(|| python.name.clone())?;
        programs.push((python.name, program));
    }
    let tracer = Tracer::start_with(&[server.port()], &EVERY_STACK)?;
    let runs = go(&mut programs)?;
    Ok((tracer.finish()?, runs))
}

fn go(programs: &mut [(String, ChainLogger)]) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for (name, program) in programs {
        let (pid, logged) = program.go().with_context(|| name.clone())?;
        runs.push(Run {
            name: name.clone(),
            pid,
            logged,
        });
    }
    Ok(runs)
}

fn ensure_as_logged(report: &Report, run: &Run) -> Result<()> {
    PYTHON
        .ensure_as_logged(report, run.pid, &run.logged)
        .with_context(|| run.name.clone())
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
        let program = python::start(&python, server.v4(), "late", 3)?;
        programs.push((python.name, program));
    }
    let runs = go(&mut programs)?;
    let report = tracer.finish()?;
    for run in &runs {
        ensure_as_logged(&report, run)?;
    }
    Ok(())
}

/// `main -> handle_order -> get_client -> redis-py`: the report has get_client for its site, and
/// from there outwards what the program logged, line by line.
fn redis_py_is_reported_at_its_caller(test: &str, way: &str) -> Result<()> {
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let needs_wheels = matches!(way, "redis-gevent" | "redis-uvloop");
    if needs_wheels && python::interpreters()?.iter().any(|p| p.packages.is_none()) {
        gate::skip(
            test,
            "kernel of the host has the packages, the virtual machine has not",
        );
        return Ok(());
    }
    let (report, runs) = traced(way, 5)?;
    for run in &runs {
        let mut seen = Chains::new();
        for group in report.of(run.pid).flat_map(|opener| &opener.stacks) {
            ensure!(group.note.is_none(), "{}: {:?}", run.name, group.note);
            let mut chain = PYTHON.chain(group);
            let caller = chain
                .iter()
                .position(|frame| frame.starts_with("get_client:"))
                .with_context(|| format!("{}: no get_client in {chain:?}", run.name))?;
            ensure!(caller > 0, "{}: no redis-py in {chain:?}", run.name);
            chain.drain(..caller);
            let site = group.site.as_ref().context("a site")?;
            let function = site.function.as_deref().unwrap_or_default();
            let file = site.file.as_deref().unwrap_or_default();
            let of_site = format!("get_client:{}", site.line.unwrap_or(0));
            ensure!(
                function.ends_with("get_client")
                    && file.ends_with("/python_frames.py")
                    && of_site == chain[0],
                "{}: {site:?}",
                run.name
            );
            *seen.entry(chain).or_default() += group.outstanding;
        }
        ensure_same(&seen, &run.logged).with_context(|| run.name.clone())?;
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

#[test]
fn a_pool_of_asyncio_connections_is_reported_where_one_was_taken() -> Result<()> {
    redis_py_is_reported_at_its_caller(
        "a_pool_of_asyncio_connections_is_reported_where_one_was_taken",
        "redis-pool",
    )
}

#[test]
fn uvloop_is_reported_through_its_await_chain() -> Result<()> {
    redis_py_is_reported_at_its_caller("uvloop_is_reported_through_its_await_chain", "redis-uvloop")
}

#[test]
fn gevent_is_reported_to_the_root_of_its_greenlet() -> Result<()> {
    redis_py_is_reported_at_its_caller(
        "gevent_is_reported_to_the_root_of_its_greenlet",
        "redis-gevent",
    )
}

/// A program of its own that has a libpython in it.
#[test]
fn a_program_that_embeds_python_is_named() -> Result<()> {
    let test = "a_program_that_embeds_python_is_named";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let mut embedders = Vec::new();
    for python in python::interpreters()? {
        embedders.extend(python.embedded()?);
    }
    if embedders.is_empty() {
        gate::skip(test, "there is no shared libpython");
        return Ok(());
    }
    let (report, runs) = traced_under(embedders, "sync", 3)?;
    for run in &runs {
        ensure_as_logged(&report, run)?;
    }
    Ok(())
}
