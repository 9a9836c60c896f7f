//! Processes that lie about what they run: their stacks are labelled, and cost little memory.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use connleak_tests::gate::{self, Need};
use connleak_tests::languages::LeakingClient;
use connleak_tests::report::{FrameKind, Opener, StackGroup};
use connleak_tests::server::RedisServer;
use connleak_tests::tracer::Tracer;
use connleak_tests::{place, python};

/// Three times what tracing takes with ordinary programs.
const MEMORY_MAX_KIB: u64 = 256 * 1024;

fn start(to: SocketAddr, file: &Path, way: &str) -> Result<LeakingClient> {
    let mut command = Command::new(place::client("liar")?);
    command.args([to.ip().to_string(), to.port().to_string()]);
    command.arg(file).arg(way);
    LeakingClient::spawn(command)
}

/// The most that a process took which this one has started and waited for: the tracers among them.
fn most_memory_kib() -> Result<u64> {
    // SAFETY: rusage is integers only, for which zero is a value; the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        ensure!(libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) == 0);
        usage
    };
    Ok(u64::try_from(usage.ru_maxrss)?)
}

/// The one outstanding connection of the program, and its stack.
fn traced(file: &Path, way: &str) -> Result<StackGroup> {
    let server = RedisServer::start()?;
    // Before it is traced, so that it is looked at when tracing starts.
    let mut program = start(server.v4(), file, way)?;
    let tracer = Tracer::start(&[server.port()])?;
    program.leak()?;
    let report = tracer.finish()?;
    let memory_kib = most_memory_kib()?;
    ensure!(memory_kib < MEMORY_MAX_KIB, "{way}: {memory_kib} KiB");
    let outstanding: Vec<&Opener> = report
        .openers
        .iter()
        .filter(|opener| opener.outstanding > 0)
        .collect();
    ensure!(outstanding.len() == 1, "{way}: {outstanding:#?}");
    ensure!(outstanding[0].stacks.len() == 1, "{way}: {outstanding:#?}");
    Ok(outstanding[0].stacks[0].clone())
}

fn functions(group: &StackGroup) -> Vec<&str> {
    let frames = group.frames.iter();
    frames.filter_map(|f| f.function.as_deref()).collect()
}

fn ensure_nothing_guessed(group: &StackGroup) -> Result<()> {
    let guessed = group
        .frames
        .iter()
        .find(|frame| frame.kind == FrameKind::Python && frame.function.is_some());
    ensure!(guessed.is_none(), "{group:#?}");
    Ok(())
}

#[test]
fn garbage_that_is_mapped_as_libpython_leaves_the_native_stack() -> Result<()> {
    let test = "garbage_that_is_mapped_as_libpython_leaves_the_native_stack";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("libpython3.12.so.1.0");
    let mut word = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::new();
    while bytes.len() < 1 << 20 {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend(word.to_le_bytes());
    }
    // An ELF file by its first bytes, and lies from there on.
    bytes[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0");
    fs::write(&file, bytes)?;
    let group = traced(&file, "garbage")?;
    ensure_nothing_guessed(&group)?;
    let functions = functions(&group);
    ensure!(
        functions.contains(&"get_client") && functions.contains(&"main"),
        "{group:#?}"
    );
    Ok(())
}

/// The library of pyenv's CPython 3.12, whose layout the program knows.
fn libpython() -> Result<Option<PathBuf>> {
    for python in python::interpreters()? {
        let program = fs::canonicalize(&python.program)?;
        let library = program
            .parent()
            .and_then(Path::parent)
            .map(|prefix| prefix.join("lib/libpython3.12.so.1.0"));
        if let Some(library) = library.filter(|library| library.exists()) {
            return Ok(Some(library));
        }
    }
    Ok(None)
}

#[test]
fn frames_that_go_in_circles_are_cut_and_have_no_names() -> Result<()> {
    let test = "frames_that_go_in_circles_are_cut_and_have_no_names";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let Some(library) = libpython()? else {
        gate::skip(test, "there is no libpython3.12");
        return Ok(());
    };
    let group = traced(&library, "loop")?;
    ensure_nothing_guessed(&group)?;
    let note = group.note.clone().unwrap_or_default();
    ensure!(
        note.contains("more than 64 frames") && note.contains("frames without name"),
        "{group:#?}"
    );
    ensure!(functions(&group).contains(&"get_client"), "{group:#?}");
    Ok(())
}

#[test]
fn a_process_that_ends_at_once_is_named_or_said_to_have_ended() -> Result<()> {
    let test = "a_process_that_ends_at_once_is_named_or_said_to_have_ended";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let group = traced(Path::new("/dev/null"), "exit")?;
    let note = group.note.clone().unwrap_or_default();
    ensure!(
        functions(&group).contains(&"get_client")
            || note == "stack ends early: the process ended before its modules could be read",
        "{group:#?}"
    );
    Ok(())
}

/// The stack of a program that runs code of its own making, and what it says of its perf map.
fn traced_with_perf_map(write: impl FnOnce(File) -> Result<()>) -> Result<(StackGroup, String)> {
    // Where perf maps belong: the program only renames it.
    let dir = tempfile::tempdir_in("/tmp")?;
    let file = dir.path().join("perf.map");
    write(File::create(&file)?)?;
    let group = traced(&file, "jit")?;
    let functions = functions(&group);
    ensure!(
        functions.contains(&"get_client") && functions.contains(&"main"),
        "{group:#?}"
    );
    let note = group.note.clone().unwrap_or_default();
    Ok((group, note))
}

#[test]
fn a_perf_map_of_a_gibibyte_is_not_read_and_the_stack_says_so() -> Result<()> {
    let test = "a_perf_map_of_a_gibibyte_is_not_read_and_the_stack_says_so";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let (group, note) = traced_with_perf_map(|file| Ok(file.set_len(1 << 30)?))?;
    ensure!(note.contains("perf map is larger than"), "{group:#?}");
    Ok(())
}

/// As large as one may be that is read, and more entries than any program has.
#[test]
fn a_perf_map_with_too_many_entries_names_nothing_and_the_stack_says_so() -> Result<()> {
    let test = "a_perf_map_with_too_many_entries_names_nothing_and_the_stack_says_so";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let (group, note) = traced_with_perf_map(|file| {
        let mut file = BufWriter::new(file);
        for page in 0..1_300_000_u64 {
            writeln!(
                file,
                "{:x} 1000 {:030}",
                0x7000_0000_0000 + (page << 12),
                page
            )?;
        }
        Ok(file.flush()?)
    })?;
    ensure!(note.contains("perf map has more than"), "{group:#?}");
    let named = group
        .frames
        .iter()
        .find(|frame| frame.kind == FrameKind::Jit && frame.function.is_some());
    ensure!(named.is_none(), "{group:#?}");
    Ok(())
}
