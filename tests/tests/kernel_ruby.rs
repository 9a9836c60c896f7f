//! Ruby stacks: every chain is the one that the program itself saw at its connect.

use anyhow::{Result, ensure};
use connleak_tests::chains::{self, Chains, Dialect};
use connleak_tests::gate::{self, Need};
use connleak_tests::report::{FrameKind, Report};
use connleak_tests::ruby;
use connleak_tests::server::RedisServer;
use connleak_tests::tracer::{EVERY_STACK, Tracer};

/// A line of the log has names without spaces. On a slow machine the C frames may be left out; the
/// Ruby frames never are.
const RUBY: Dialect = Dialect {
    kind: FrameKind::Ruby,
    name: |name| Some(name.replace(' ', "_")),
    notes: &["no native frames: too many"],
};

fn traced(way: &str, count: u32) -> Result<(Report, u32, Chains)> {
    let server = RedisServer::start()?;
    let mut program = ruby::start(server.v4(), way, count)?;
    chains::traced(&server, &mut program)
}

fn every_chain_is_as_logged(test: &str, way: &str, count: u32) -> Result<()> {
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let (report, pid, logged) = traced(way, count)?;
    RUBY.ensure_as_logged(&report, pid, &logged)
}

#[test]
fn ruby_is_named_in_blocks_rescues_evaluated_and_long_code() -> Result<()> {
    let test = "ruby_is_named_in_blocks_rescues_evaluated_and_long_code";
    every_chain_is_as_logged(test, "sync", 5)
}

#[test]
fn a_ruby_thread_is_named_while_others_hold_the_lock() -> Result<()> {
    every_chain_is_as_logged(
        "a_ruby_thread_is_named_while_others_hold_the_lock",
        "threads",
        24,
    )
}

#[test]
fn a_fiber_is_named_to_its_root() -> Result<()> {
    every_chain_is_as_logged("a_fiber_is_named_to_its_root", "fibers", 5)
}

#[test]
fn a_forked_ruby_is_named_from_its_first_connect() -> Result<()> {
    every_chain_is_as_logged("a_forked_ruby_is_named_from_its_first_connect", "fork", 3)
}

#[test]
fn a_ruby_that_starts_while_traced_is_named_within_a_second() -> Result<()> {
    let test = "a_ruby_that_starts_while_traced_is_named_within_a_second";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let tracer = Tracer::start_with(&[server.port()], &EVERY_STACK)?;
    // It waits a second before it connects.
    let mut program = ruby::start(server.v4(), "late", 3)?;
    let (pid, logged) = program.go()?;
    RUBY.ensure_as_logged(&tracer.finish()?, pid, &logged)
}

#[test]
fn more_frames_than_are_taken_are_told() -> Result<()> {
    let test = "more_frames_than_are_taken_are_told";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let (report, pid, logged) = traced("deep", 2)?;
    for group in report.of(pid).flat_map(|opener| &opener.stacks) {
        let note = group.note.as_deref().unwrap_or_default();
        ensure!(note == "stack ends early: more than 64 frames", "{note:?}");
        let chain = RUBY.chain(group);
        // Two of the 64 are written in C: TCPSocket.new and its initialize.
        ensure!(chain.len() == 62, "{chain:?}");
        let is_whole = logged.keys().any(|logged| logged.starts_with(&chain));
        ensure!(is_whole, "{chain:?} is not in {logged:#?}");
    }
    Ok(())
}

/// The program that says it is a Ruby has this label, and no Ruby frame with a line.
fn is_labelled(test: &str, way: &str, version: (u32, u32), label: &str) -> Result<()> {
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let (_dir, mut program) = ruby::start_fake(server.v4(), way, version)?;
    let (report, pid, _) = chains::traced(&server, &mut program)?;
    let groups: Vec<_> = report.of(pid).flat_map(|opener| &opener.stacks).collect();
    ensure!(!groups.is_empty(), "nothing was reported");
    for group in groups {
        let note = group.note.as_deref().unwrap_or_default();
        ensure!(note.contains(label), "{note:?} does not say {label:?}");
        for frame in RUBY.chain(group) {
            // Whatever says that it is a name of a kibibyte or less.
            let is_bounded = frame.ends_with(":0") && frame.chars().count() <= 1_024 + 2;
            ensure!(is_bounded, "{frame:?}");
        }
    }
    Ok(())
}

#[test]
fn a_version_that_is_not_known_labels_the_stack() -> Result<()> {
    is_labelled(
        "a_version_that_is_not_known_labels_the_stack",
        "version",
        (3, 9),
        "no Ruby frames: Ruby 3.9 is not supported",
    )
}

#[test]
fn a_ruby_that_does_not_tell_its_version_labels_the_stack() -> Result<()> {
    is_labelled(
        "a_ruby_that_does_not_tell_its_version_labels_the_stack",
        "version",
        (7_000_000, 0),
        "no Ruby frames: ruby3 does not tell its version",
    )
}

/// As one that is not up yet, or was built with other options.
#[test]
fn a_ruby_whose_machine_is_not_found_labels_the_stack() -> Result<()> {
    is_labelled(
        "a_ruby_whose_machine_is_not_found_labels_the_stack",
        "version",
        (3, 1),
        "no Ruby frames: its interpreter was not known yet",
    )
}

#[test]
fn a_ruby_that_lies_about_its_frames_is_read_within_bounds() -> Result<()> {
    is_labelled(
        "a_ruby_that_lies_about_its_frames_is_read_within_bounds",
        "lies",
        (3, 1),
        "frames without name",
    )
}
