//! Native stacks of real programs: unwound and named from registers, a stack copy and /proc.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod capture;
mod hostile;
mod target;

use std::path::Path;
use std::process::Command;

use connleak::stacks::{Frame, FrameKind, Resolver, ResolverConfig, SiteRules, Stack};

use capture::capture;
use target::{FullListener, Target, build_c, build_rust, marked_line};

const COPY_BYTES: usize = 32 << 10;

fn command(binary: &Path, listener: &FullListener) -> Command {
    let mut command = Command::new(binary);
    command.arg(listener.port().to_string());
    command
}

fn resolve(target: &Target) -> Stack {
    let sample = capture(target.thread_in_connect(), COPY_BYTES).expect("a sample");
    Resolver::new(ResolverConfig::default()).resolve(target.key(), &sample)
}

fn functions(stack: &Stack) -> Vec<&str> {
    let name = |frame: &Frame| {
        frame
            .function
            .as_deref()
            .map(|name| name.to_owned().leak() as &str)
    };
    stack.frames.iter().filter_map(name).collect()
}

/// The named functions come in this order, others may lie between.
fn assert_order(stack: &Stack, expected: &[&str]) {
    let mut found = functions(stack).into_iter();
    for name in expected {
        assert!(
            found.any(|function| function == *name || function.ends_with(&format!("::{name}"))),
            "{name} is missing or out of order in {stack:#?}"
        );
    }
}

fn line_of(stack: &Stack, function: &str) -> Option<u32> {
    let ends = |frame: &&Frame| {
        let name = frame.function.as_deref().unwrap_or_default();
        name == function || name.ends_with(&format!("::{function}"))
    };
    stack.frames.iter().find(ends)?.line
}

/// libc's debug information, where installed, calls it __libc_connect.
fn assert_in_connect(stack: &Stack) {
    let innermost = stack
        .frames
        .first()
        .and_then(|frame| frame.function.as_deref());
    assert!(
        innermost.is_some_and(|name| name.ends_with("connect")),
        "{stack:#?}"
    );
}

fn is_own(frame: &&Frame) -> bool {
    let module = frame.module.as_deref();
    module.is_some_and(|module| module.ends_with("/client"))
}

fn assert_whole_c_stack(stack: &Stack) {
    assert_order(stack, &["get_client", "handle_order", "main", "_start"]);
    assert_in_connect(stack);
    assert_eq!(stack.note, None, "{stack:#?}");
}

fn assert_c_lines(stack: &Stack) {
    for function in ["handle_order", "main"] {
        assert_eq!(
            line_of(stack, function),
            Some(marked_line("client.c", function)),
            "{function} in {stack:#?}"
        );
    }
    let inlined = stack.frames.iter().find(|frame| frame.inlined);
    let inlined = inlined.expect("an inlined frame");
    assert_eq!(inlined.function.as_deref(), Some("open_inlined"));
    assert_eq!(inlined.line, Some(marked_line("client.c", "connect")));
    assert_eq!(
        line_of(stack, "get_client"),
        Some(marked_line("client.c", "get_client"))
    );
    assert!(
        inlined
            .file
            .as_deref()
            .is_some_and(|file| file.ends_with("client.c"))
    );
}

fn site_of(stack: &Stack) -> String {
    let site = SiteRules::default().site(&stack.frames);
    site.expect("a site").to_string()
}

fn c_stack(flags: &[&str], arguments: &[&str]) -> Stack {
    let dir = tempfile::tempdir().expect("a directory");
    let binary = dir.path().join("client");
    build_c(&binary, flags);
    let listener = FullListener::open().expect("a full listener");
    let target = Target::spawn(command(&binary, &listener).args(arguments)).expect("a target");
    resolve(&target)
}

#[test]
fn a_position_independent_program_without_frame_pointers_is_named_to_start() {
    let stack = c_stack(&["-g", "-fPIE", "-pie"], &[]);
    assert_whole_c_stack(&stack);
    assert_c_lines(&stack);
    let marked = marked_line("client.c", "connect");
    assert_eq!(site_of(&stack), format!("client.c:{marked} open_inlined"));
}

#[test]
fn a_program_at_fixed_addresses_is_named_to_start() {
    let stack = c_stack(&["-g", "-fno-PIE", "-no-pie"], &[]);
    assert_whole_c_stack(&stack);
    assert_c_lines(&stack);
}

#[test]
fn compressed_debug_information_gives_lines() {
    let stack = c_stack(&["-g", "-gz=zlib"], &[]);
    assert_whole_c_stack(&stack);
    assert_c_lines(&stack);
}

#[test]
fn without_debug_information_functions_have_names_and_no_lines() {
    let stack = c_stack(&[], &[]);
    assert_whole_c_stack(&stack);
    let mut own = stack.frames.iter().filter(is_own);
    assert!(own.all(|frame| frame.line.is_none()), "{stack:#?}");
}

#[test]
fn a_static_program_is_named_to_start() {
    let stack = c_stack(&["-g", "-static"], &[]);
    assert_whole_c_stack(&stack);
    assert_c_lines(&stack);
}

#[test]
fn a_static_position_independent_program_is_named_to_start() {
    assert_whole_c_stack(&c_stack(&["-static-pie"], &[]));
}

#[test]
fn a_stripped_program_has_frames_without_names_and_is_whole() {
    let stack = c_stack(&["-s"], &[]);
    assert_eq!(stack.note, None, "{stack:#?}");
    assert_in_connect(&stack);
    let own: Vec<&Frame> = stack.frames.iter().filter(is_own).collect();
    assert!(own.len() >= 4, "{stack:#?}");
    assert!(
        own.iter().all(|frame| frame.function.is_none()),
        "{stack:#?}"
    );
}

#[test]
fn a_thread_is_named_to_its_root() {
    let stack = c_stack(&["-g"], &["thread"]);
    assert_order(&stack, &["get_client", "handle_order", "worker"]);
    assert_eq!(stack.note, None, "{stack:#?}");
}

/// musl's connect has no unwind tables: its instructions are followed to its return.
#[test]
fn a_musl_program_is_named_to_start() {
    if Command::new("musl-gcc").arg("--version").output().is_err() {
        eprintln!("skipped: there is no musl-gcc (package musl-tools)");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let binary = dir.path().join("client");
    let listener = FullListener::open().expect("a full listener");
    for flag in ["-pie", "-static"] {
        target::build_c_with("musl-gcc", &binary, &["-g", flag]);
        let target = Target::spawn(&mut command(&binary, &listener)).expect("a target");
        let stack = resolve(&target);
        assert_order(&stack, &["connect", "get_client", "handle_order", "main"]);
        assert_c_lines(&stack);
        assert_eq!(stack.note, None, "{stack:#?}");
    }
}

#[test]
fn code_written_at_run_time_is_a_frame_without_a_name() {
    let stack = c_stack(&["-g"], &["jit"]);
    assert_order(&stack, &["get_client", "handle_order", "main", "_start"]);
    assert_eq!(stack.note, None, "{stack:#?}");
    let written: Vec<&Frame> = stack
        .frames
        .iter()
        .filter(|frame| frame.kind == FrameKind::Jit)
        .collect();
    assert_eq!(written.len(), 1, "{stack:#?}");
    assert_eq!((&written[0].function, &written[0].module), (&None, &None));
}

#[test]
fn a_rust_release_program_is_named_and_demangled() {
    let dir = tempfile::tempdir().expect("a directory");
    let binary = dir.path().join("client");
    let listener = FullListener::open().expect("a full listener");
    for flags in [
        &["-C", "debuginfo=0"][..],
        &["-C", "debuginfo=line-tables-only"],
        &["-g"],
    ] {
        build_rust(&binary, flags);
        let target = Target::spawn(&mut command(&binary, &listener)).expect("a target");
        let stack = resolve(&target);
        let path = ["get_client", "handle_order", "serve", "main", "_start"];
        assert_order(&stack, &path);
        assert_eq!(stack.note, None, "{stack:#?}");
        assert!(site_of(&stack).contains("get_client"), "{stack:#?}");
        if !flags.contains(&"debuginfo=0") {
            for function in ["get_client", "handle_order"] {
                let marked = marked_line("client.rs", function);
                assert_eq!(line_of(&stack, function), Some(marked), "{stack:#?}");
            }
        }
    }
}

#[test]
fn a_separate_debug_file_found_by_build_id_gives_lines() {
    let dir = tempfile::tempdir().expect("a directory");
    let (binary, debug) = (dir.path().join("client"), dir.path().join("client.debug"));
    build_c(&binary, &["-g", "-Wl,--build-id=0x00112233445566778899"]);
    target::split_debug(&binary, &debug);
    let by_id = dir.path().join(".build-id/00");
    std::fs::create_dir_all(&by_id).expect("a directory");
    std::fs::rename(&debug, by_id.join("112233445566778899.debug")).expect("the debug file");
    let listener = FullListener::open().expect("a full listener");
    let target = Target::spawn(&mut command(&binary, &listener)).expect("a target");
    let sample = capture(target.thread_in_connect(), COPY_BYTES).expect("a sample");
    let config = ResolverConfig {
        debug_dirs: vec![dir.path().to_owned()],
        ..ResolverConfig::default()
    };
    let stack = Resolver::new(config).resolve(target.key(), &sample);
    assert_whole_c_stack(&stack);
    assert_c_lines(&stack);
}

/// Prints what the work costs: `cargo test --release -- --ignored --nocapture cost`.
#[test]
#[ignore = "prints figures, asserts nothing"]
fn cost_of_a_stack() {
    let dir = tempfile::tempdir().expect("a directory");
    let binary = dir.path().join("client");
    build_rust(&binary, &["-g"]);
    let listener = FullListener::open().expect("a full listener");
    let target = Target::spawn(&mut command(&binary, &listener)).expect("a target");
    let sample = capture(target.thread_in_connect(), COPY_BYTES).expect("a sample");
    let mut resolver = Resolver::new(ResolverConfig::default());
    let timed = |what: &str, runs: u32, work: &mut dyn FnMut()| {
        let start = std::time::Instant::now();
        for _ in 0..runs {
            work();
        }
        let each_us = start.elapsed().as_secs_f64() * 1e6 / f64::from(runs);
        eprintln!("{what}: {each_us:.1} us");
    };
    timed("first module table", 1, &mut || {
        resolver.observe(target.key())
    });
    timed("module table again", 100, &mut || {
        resolver.forget(target.key());
        resolver.observe(target.key());
    });
    timed("first stack", 1, &mut || {
        drop(resolver.resolve(target.key(), &sample))
    });
    timed("stack, all cached", 10_000, &mut || {
        drop(resolver.resolve(target.key(), &sample))
    });
    let rules = SiteRules::default();
    let stack = resolver.resolve(target.key(), &sample);
    timed("site", 1_000, &mut || drop(rules.site(&stack.frames)));
    let mut uncached = Resolver::new(ResolverConfig {
        cache_bytes: 0,
        ..ResolverConfig::default()
    });
    uncached.resolve(target.key(), &sample);
    timed("stack, names looked up", 100, &mut || {
        drop(uncached.resolve(target.key(), &sample))
    });
    eprintln!(
        "frames: {}, held: {} bytes",
        stack.frames.len(),
        resolver.held_bytes()
    );
}

/// Prints the stack of `CONNLEAK_TARGET`, a shell command that is given the port as `$PORT`.
#[test]
#[ignore = "for looking at a program by hand"]
fn stack_of_a_command() {
    let Ok(text) = std::env::var("CONNLEAK_TARGET") else {
        return;
    };
    let listener = FullListener::open().expect("a full listener");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("exec {text}")])
        .env("PORT", listener.port().to_string());
    let target = Target::spawn(&mut shell).expect("a target");
    let stack = resolve(&target);
    for frame in &stack.frames {
        let (function, file) = (frame.function.as_deref(), frame.file.as_deref());
        eprintln!(
            "{:?} {function:?} {file:?} {:?} {:?}",
            frame.kind, frame.line, frame.module
        );
    }
    eprintln!(
        "note {:?}, site {:?}",
        stack.note,
        SiteRules::default().site(&stack.frames)
    );
}
