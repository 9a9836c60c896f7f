//! Java stacks: every chain is the one that the program itself saw at its connect.

use anyhow::{Result, ensure};
use connleak_tests::chains::{self, Chains, Dialect};
use connleak_tests::gate::{self, Need};
use connleak_tests::java;
use connleak_tests::report::{FrameKind, Report, StackGroup};
use connleak_tests::server::RedisServer;
use connleak_tests::tracer::{EVERY_STACK, Tracer};

/// Names as the report has them. What Java ships with is there too, and another JDK has other frames.
const JAVA: Dialect = Dialect {
    kind: FrameKind::Java,
    name: |name| {
        let is_library = ["java.", "jdk.", "sun."]
            .iter()
            .any(|it| name.starts_with(it));
        (!is_library).then(|| name.to_owned())
    },
    notes: &[],
};

fn traced(options: &[&str], way: &str, count: u32) -> Result<(Report, u32, Chains)> {
    let server = RedisServer::start()?;
    let (_classes, mut program) = java::start(server.v4(), options, way, count)?;
    chains::traced(&server, &mut program)
}

fn every_chain_is_as_logged(test: &str, options: &[&str], way: &str, count: u32) -> Result<()> {
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let (report, pid, logged) = traced(options, way, count)?;
    JAVA.ensure_as_logged(&report, pid, &logged)
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
    let options = [
        "-Xbatch",
        "-XX:CompileCommand=quiet",
        "-XX:CompileCommand=dontinline,*::take",
    ];
    every_chain_is_as_logged(test, &options, "outdated", 1)
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
    JAVA.ensure_as_logged(&tracer.finish()?, pid, &logged)
}

/// There is room for what has run last, and what was compiled before is thrown away.
#[test]
fn java_whose_code_is_thrown_away_is_right_or_labelled() -> Result<()> {
    let test = "java_whose_code_is_thrown_away_is_right_or_labelled";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let options = [
        "-XX:InitialCodeCacheSize=2496k",
        "-XX:ReservedCodeCacheSize=2560k",
        "-XX:StartAggressiveSweepingAt=60",
    ];
    let (report, pid, mut logged) = traced(&options, "compiling", 200)?;
    let groups: Vec<_> = report.of(pid).flat_map(|opener| &opener.stacks).collect();
    let total: u64 = groups.iter().map(|group| group.outstanding).sum();
    let (whole, cut): (Vec<_>, Vec<_>) = groups.into_iter().partition(|it| it.note.is_none());
    for group in whole {
        let chain = JAVA.chain(group);
        let left = logged.get_mut(&chain).map_or(0, |count| {
            let taken = group.outstanding.min(*count);
            *count -= taken;
            taken
        });
        ensure!(
            left == group.outstanding,
            "{chain:?} was not logged so often"
        );
    }
    for group in &cut {
        let chain = JAVA.chain(group);
        let note = group.note.as_deref().unwrap_or_default();
        ensure!(
            note == "stack ends early: the code of a Java frame was gone when it was read",
            "{note}"
        );
        let begins_so =
            |(logged, count): (&Vec<String>, &u64)| *count > 0 && logged.starts_with(&chain);
        ensure!(
            logged.iter().any(begins_so),
            "{chain:?} is not in {logged:#?}"
        );
    }
    let cut: u64 = cut.iter().map(|group| group.outstanding).sum();
    ensure!(cut < total / 2, "{cut} of {total} are cut");
    Ok(())
}

#[test]
fn more_frames_than_are_taken_are_told() -> Result<()> {
    let test = "more_frames_than_are_taken_are_told";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let (report, pid, logged) = traced(&["-Xint", "-Xss8m"], "deep", 2)?;
    for group in report.of(pid).flat_map(|opener| &opener.stacks) {
        let note = group.note.as_deref().unwrap_or_default();
        ensure!(note == "stack ends early: more than 256 frames", "{note:?}");
        let chain = JAVA.chain(group);
        ensure!(chain.len() > 100, "{chain:?}");
        let is_whole = logged.keys().any(|logged| logged.starts_with(&chain));
        ensure!(is_whole, "{chain:?} is not in {logged:#?}");
    }
    Ok(())
}

fn is_guess(group: &StackGroup) -> bool {
    let guess = "no unwind tables for its JVM's code";
    let doubt = "; the frames outside it were found by frame pointers and may be wrong";
    let note = group.note.as_deref().unwrap_or_default();
    note.split_once(guess)
        .is_some_and(|(_, rest)| rest.contains(doubt))
}

/// Every stack of the process has this label, and no Java frame.
fn ensure_labelled(report: &Report, pid: u32, label: &str) -> Result<()> {
    let groups: Vec<_> = report.of(pid).flat_map(|opener| &opener.stacks).collect();
    ensure!(!groups.is_empty(), "nothing was reported");
    for group in groups {
        let note = group.note.as_deref().unwrap_or_default();
        ensure!(note.contains(label), "{note:?} does not say {label:?}");
        ensure!(JAVA.chain(group).is_empty(), "{:?}", JAVA.chain(group));
    }
    Ok(())
}

#[test]
fn a_jvm_that_does_not_describe_itself_labels_the_stack() -> Result<()> {
    let test = "a_jvm_that_does_not_describe_itself_labels_the_stack";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let (_jdk, mut program) = java::start_silent(server.v4(), &[], "sync", 1)?;
    let (report, pid, _) = chains::traced(&server, &mut program)?;
    let label = "Java frames without name: libjvm.so does not describe itself; --java-perfmap";
    ensure_labelled(&report, pid, label)
}

#[test]
fn compiled_frames_of_such_a_jvm_are_named_by_its_perf_map() -> Result<()> {
    let test = "compiled_frames_of_such_a_jvm_are_named_by_its_perf_map";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let options = [
        "-XX:+PreserveFramePointer",
        "-XX:CompileCommand=quiet",
        "-XX:CompileCommand=dontinline,Frames*::*",
    ];
    let (_jdk, mut program) = java::start_silent(server.v4(), &options, "warm", 1)?;
    let asked = [EVERY_STACK.as_slice(), &["--java-perfmap"]].concat();
    let tracer = Tracer::start_with(&[server.port()], &asked)?;
    let (pid, _) = program.go()?;
    let report = tracer.finish()?;
    let groups = || report.of(pid).flat_map(|opener| &opener.stacks);
    let is_named = |group: &StackGroup| {
        let functions = group.frames.iter().filter(|it| it.kind == FrameKind::Jit);
        let functions: Vec<_> = functions.filter_map(|it| it.function.as_deref()).collect();
        let calls = ["Frames.getClient", "Frames.handleOrder", "Frames.recursive"];
        calls.iter().all(|call| functions.contains(call))
    };
    ensure!(groups().any(is_named), "{:#?}", report.openers);
    // Its frame pointers are there, but nothing says so.
    ensure!(groups().all(is_guess), "{:#?}", report.openers);
    Ok(())
}

/// Of the program that says it is a JVM in this way.
fn is_labelled(test: &str, way: &str, label: &str) -> Result<()> {
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let mut program = java::start_fake(server.v4(), way, 3)?;
    let tracer = Tracer::start_with(&[server.port()], &EVERY_STACK)?;
    program.leak()?;
    let report = tracer.finish()?;
    ensure_labelled(&report, program.pid(), label)
}

#[test]
fn a_jvm_that_describes_itself_without_end_labels_the_stack() -> Result<()> {
    is_labelled(
        "a_jvm_that_describes_itself_without_end_labels_the_stack",
        "endless",
        "1 Java frames without name: libjvm.so does not describe itself",
    )
}

#[test]
fn a_jvm_of_a_version_that_is_not_known_labels_the_stack() -> Result<()> {
    is_labelled(
        "a_jvm_of_a_version_that_is_not_known_labels_the_stack",
        "version",
        "1 Java frames without name: JDK 99 is not supported",
    )
}

#[test]
fn a_jvm_that_lies_about_its_code_is_read_within_bounds() -> Result<()> {
    is_labelled(
        "a_jvm_that_lies_about_its_code_is_read_within_bounds",
        "lies",
        "stack ends early: the code of a Java frame was gone when it was read",
    )
}

/// The first stack is walked by frame pointers, and what comes later is read as a JVM is.
#[test]
fn a_jvm_that_does_not_describe_itself_yet_is_looked_at_again() -> Result<()> {
    let test = "a_jvm_that_does_not_describe_itself_yet_is_looked_at_again";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let mut program = java::start_fake(server.v4(), "late", 3)?;
    let tracer = Tracer::start_with(&[server.port()], &EVERY_STACK)?;
    program.leak()?;
    let report = tracer.finish()?;
    let groups = report.of(program.pid()).flat_map(|opener| &opener.stacks);
    let (guessed, read): (Vec<_>, Vec<_>) = groups.partition(|group| is_guess(group));
    let count = |groups: &[&StackGroup]| groups.iter().map(|it| it.outstanding).sum::<u64>();
    ensure!(
        (count(&guessed), count(&read)) == (1, 2),
        "{:#?}",
        report.openers
    );
    for group in read {
        let note = group.note.as_deref().unwrap_or_default();
        ensure!(note.contains("code of a Java frame was gone"), "{note:?}");
    }
    Ok(())
}

/// A JVM is asked by a signal that ends whoever does not catch it.
#[test]
fn a_jvm_that_is_not_up_is_not_asked_what_it_compiled() -> Result<()> {
    let test = "a_jvm_that_is_not_up_is_not_asked_what_it_compiled";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let server = RedisServer::start()?;
    let mut program = java::start_fake(server.v4(), "endless", 3)?;
    let asked = [EVERY_STACK.as_slice(), &["--java-perfmap"]].concat();
    let tracer = Tracer::start_with(&[server.port()], &asked)?;
    program.leak()?;
    let label = "Java frames without name: libjvm.so does not describe itself";
    ensure_labelled(&tracer.finish()?, program.pid(), label)?;
    ensure!(program.is_running()?, "it was ended");
    Ok(())
}
