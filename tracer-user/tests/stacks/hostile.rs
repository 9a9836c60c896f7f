//! Targets that go away, hide or change under the resolver: a labelled stack, never a guess.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use connleak::stacks::{ProcessKey, Registers, Resolver, ResolverConfig, StackSample};

use crate::capture::{self, capture};
use crate::target::{FullListener, Target, build_around, build_c};
use crate::{
    COPY_BYTES, assert_c_lines, assert_in_connect, assert_order, assert_whole_c_stack, command,
    is_own, resolve,
};

/// map_files and mount namespaces are root's.
fn is_root(test: &str) -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root {
        eprintln!("skipped: {test} needs root");
    }
    is_root
}

#[test]
fn a_binary_deleted_after_the_start_is_still_named() {
    if !is_root("opening a deleted file through map_files") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let binary = dir.path().join("client");
    build_c(&binary, &["-g"]);
    let listener = FullListener::open().expect("a full listener");
    let target = Target::spawn(&mut command(&binary, &listener)).expect("a target");
    target.thread_in_connect();
    fs::remove_file(&binary).expect("the binary removed");
    // Another program takes its place: its names must not be used.
    fs::write(&binary, b"not the program that runs").expect("a replacement");
    let stack = resolve(&target);
    assert_whole_c_stack(&stack);
    assert_c_lines(&stack);
}

#[test]
fn a_process_that_has_ended_gives_a_labelled_stack() {
    let dir = tempfile::tempdir().expect("a directory");
    let binary = dir.path().join("client");
    build_c(&binary, &["-g"]);
    let listener = FullListener::open().expect("a full listener");
    let mut target = Target::spawn(&mut command(&binary, &listener)).expect("a target");
    let sample = capture(target.thread_in_connect(), COPY_BYTES).expect("a sample");
    let key = target.key();
    let mut observer = Resolver::new(ResolverConfig::default());
    observer.observe(key);
    target.kill();

    let stack = Resolver::new(ResolverConfig::default()).resolve(key, &sample);
    assert!(stack.frames.is_empty(), "{stack:#?}");
    let note = stack.note.as_deref().unwrap_or_default();
    assert!(
        note.starts_with("stack ends early: the process ended"),
        "{note}"
    );

    // One that was observed while it lived is named after its end, from the files kept open.
    fs::remove_file(&binary).expect("the binary removed");
    let stack = observer.resolve(key, &sample);
    assert_whole_c_stack(&stack);
    assert_c_lines(&stack);
    observer.forget(key);
    assert!(observer.resolve(key, &sample).frames.is_empty());
}

#[test]
fn a_pid_used_again_is_not_taken_for_the_process_that_ended() {
    let dir = tempfile::tempdir().expect("a directory");
    let binary = dir.path().join("client");
    build_c(&binary, &[]);
    let listener = FullListener::open().expect("a full listener");
    let target = Target::spawn(&mut command(&binary, &listener)).expect("a target");
    let sample = capture(target.thread_in_connect(), COPY_BYTES).expect("a sample");
    let earlier = ProcessKey {
        start_time_ns: target.key().start_time_ns - 1_000_000_000,
        ..target.key()
    };
    let stack = Resolver::new(ResolverConfig::default()).resolve(earlier, &sample);
    assert!(stack.frames.is_empty(), "{stack:#?}");
}

#[test]
fn a_program_in_another_mount_namespace_is_named() {
    if !is_root("making a mount namespace") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let binary = dir.path().join("client");
    let hidden = tempfile::tempdir().expect("a directory");
    build_c(&binary, &["-g"]);
    let listener = FullListener::open().expect("a full listener");
    // The program lies on a file system that only its own namespace sees.
    let script =
        "mount -t tmpfs none \"$1\" && cp \"$2\" \"$1/client\" && exec \"$1/client\" \"$3\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", script, "sh"]);
    unshare
        .arg(hidden.path())
        .arg(&binary)
        .arg(listener.port().to_string());
    let target = Target::spawn(&mut unshare).expect("a target");
    let stack = {
        target.thread_in_connect();
        assert!(!hidden.path().join("client").exists());
        resolve(&target)
    };
    assert_whole_c_stack(&stack);
    assert_c_lines(&stack);
}

#[test]
fn a_copy_that_is_too_small_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let binary = dir.path().join("client");
    build_c(&binary, &["-g"]);
    let listener = FullListener::open().expect("a full listener");
    let target = Target::spawn(&mut command(&binary, &listener)).expect("a target");
    let sample = capture(target.thread_in_connect(), 256).expect("a sample");
    let stack = Resolver::new(ResolverConfig::default()).resolve(target.key(), &sample);
    assert_in_connect(&stack);
    let note = stack.note.as_deref().unwrap_or_default();
    assert!(note.starts_with("stack ends early: only"), "{note}");
}

#[test]
fn libraries_mapped_after_first_sight_are_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let binary = dir.path().join("client");
    build_c(&binary, &["-g"]);
    let listener = FullListener::open().expect("a full listener");
    let mut traced = command(&binary, &listener);
    // SAFETY: between fork and exec only ptrace is called, which is async-signal-safe.
    unsafe {
        traced.pre_exec(|| capture::request(libc::PTRACE_TRACEME, 0, std::ptr::null_mut()));
    }
    let target = Target::spawn(&mut traced).expect("a target");
    let pid = target.pid() as libc::pid_t;
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    // Stopped at exec: the dynamic linker has mapped nothing yet.
    let mut resolver = Resolver::new(ResolverConfig::default());
    resolver.observe(target.key());
    capture::request(libc::PTRACE_DETACH, pid, std::ptr::null_mut()).expect("it runs on");
    let sample = capture(target.thread_in_connect(), COPY_BYTES).expect("a sample");
    let stack = resolver.resolve(target.key(), &sample);
    assert_whole_c_stack(&stack);
}

#[test]
fn a_library_cut_short_under_us_does_not_kill_us() {
    let dir = tempfile::tempdir().expect("a directory");
    let (library, binary) = (dir.path().join("libclient.so"), dir.path().join("main"));
    build_c(&library, &["-g", "-shared", "-fPIC"]);
    build_around(&binary, &library);
    let listener = FullListener::open().expect("a full listener");
    let target = Target::spawn(&mut command(&binary, &listener)).expect("a target");
    let sample = capture(target.thread_in_connect(), COPY_BYTES).expect("a sample");
    let mut resolver = Resolver::new(ResolverConfig::default());
    let stack = resolver.resolve(target.key(), &sample);
    assert_order(&stack, &["get_client", "handle_order", "main", "_start"]);

    let file = fs::OpenOptions::new()
        .write(true)
        .open(&library)
        .expect("the library");
    file.set_len(64).expect("the library cut short");
    // What was read stays; who comes later gets a label.
    assert_eq!(resolver.resolve(target.key(), &sample), stack);
    let late = Resolver::new(ResolverConfig::default()).resolve(target.key(), &sample);
    assert!(late.note.is_some(), "{late:#?}");
    assert!(
        late.frames
            .iter()
            .all(|frame| frame.function.as_deref() != Some("get_client"))
    );
}

#[test]
fn a_program_without_section_headers_is_unwound() {
    let dir = tempfile::tempdir().expect("a directory");
    let binary = dir.path().join("client");
    build_c(&binary, &["-s"]);
    let mut bytes = fs::read(&binary).expect("the program");
    bytes[40..48].fill(0);
    bytes[60..64].fill(0);
    fs::write(&binary, bytes).expect("the program");
    let listener = FullListener::open().expect("a full listener");
    let target = Target::spawn(&mut command(&binary, &listener)).expect("a target");
    let stack = resolve(&target);
    assert_eq!(stack.note, None, "{stack:#?}");
    assert!(
        stack.frames.iter().filter(is_own).count() >= 4,
        "{stack:#?}"
    );
}

#[test]
fn wild_registers_give_a_labelled_stack() {
    let sample = |ip, sp, fp| StackSample {
        registers: Registers { ip, sp, fp, lr: 0 },
        copy: vec![0xff; 4096].into(),
        bounded: false,
        interpreter: connleak::stacks::FrameSample::default(),
    };
    let key = ProcessKey {
        pid: std::process::id(),
        start_time_ns: 0,
    };
    let mut resolver = Resolver::new(ResolverConfig::default());
    for (ip, sp, fp) in [
        (0, 0, 0),
        (1, u64::MAX, u64::MAX),
        (u64::MAX, 8, 0),
        (0, 1 << 40, 7),
    ] {
        let stack = resolver.resolve(key, &sample(ip, sp, fp));
        assert!(stack.frames.is_empty(), "{stack:#?}");
        assert!(
            stack
                .note
                .is_some_and(|note| note.starts_with("stack ends early: "))
        );
    }
    let own_code = wild_registers_give_a_labelled_stack as fn() as usize as u64;
    for (sp, fp) in [(u64::MAX - 4000, u64::MAX), (1 << 40, 1 << 40), (8, 0)] {
        let stack = resolver.resolve(key, &sample(own_code, sp, fp));
        assert!(stack.note.is_some(), "{stack:#?}");
    }
}

#[test]
fn small_bounds_hold_and_lose_names_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let binary = dir.path().join("client");
    build_c(&binary, &["-g"]);
    let listener = FullListener::open().expect("a full listener");
    let target = Target::spawn(&mut command(&binary, &listener)).expect("a target");
    let sample = capture(target.thread_in_connect(), COPY_BYTES).expect("a sample");
    let mut resolver = Resolver::new(ResolverConfig {
        processes: 1,
        images: 1,
        names_bytes: 0,
        image_names_bytes: 64 << 10,
        cache_bytes: 0,
        debug_dirs: Vec::new(),
        ..ResolverConfig::default()
    });
    let first = resolver.resolve(target.key(), &sample);
    assert_order(&first, &["get_client", "handle_order", "main", "_start"]);
    let held_bytes = resolver.held_bytes();
    for _ in 0..20 {
        assert_eq!(resolver.resolve(target.key(), &sample), first);
        assert!(resolver.held_bytes() <= held_bytes + (64 << 10));
    }
}
