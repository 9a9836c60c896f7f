//! Processes with a JVM that cannot be read, as /proc shows them: what is guessed there says so.

use std::fs;
use std::path::Path;

use super::super::{FrameSample, ProcessKey, Registers, Resolver, ResolverConfig};
use super::super::{Stack, StackSample};

const KEY: ProcessKey = ProcessKey {
    pid: 7,
    start_time_ns: 0,
};
const CODE: u64 = 0x7f00_0000_0000;
const LATER_CODE: u64 = CODE + 0x10_0000;
const STACK: u64 = 0x7ffc_0000_0000;
/// No file lies there.
const LIBJVM: &str = "7f0000200000-7f0000201000 r-xp 00000000 fe:01 42 /jdk/lib/server/libjvm.so\n";
const GUESSED: &str = "the frames outside it were found by frame pointers and may be wrong";

fn code(at: u64) -> String {
    format!("{at:x}-{:x} r-xp 00000000 00:00 0 \n", at + 0x1000)
}

fn process(proc_root: &Path, maps: &[&str]) {
    let dir = proc_root.join(KEY.pid.to_string());
    fs::create_dir_all(dir.join("root/tmp")).expect("folders");
    fs::write(dir.join("maps"), maps.concat()).expect("maps");
    fs::write(dir.join("status"), "NSpid:\t7\n").expect("a status");
    let zeroes = "0 ".repeat(30);
    fs::write(dir.join("stat"), format!("7 (java) S {zeroes}")).expect("a stat");
}

fn write_perf_map(proc_root: &Path, map: &str) {
    fs::write(proc_root.join("7/root/tmp/perf-7.map"), map).expect("a perf map");
}

fn resolver(proc_root: &Path) -> Resolver {
    Resolver::new(ResolverConfig {
        proc_root: proc_root.to_owned(),
        ..ResolverConfig::default()
    })
}

/// Two frames in the JVM's code, the first of which keeps a frame pointer.
fn resolve(resolver: &mut Resolver, code: u64) -> Stack {
    let words = [0, 0, STACK + 64, code + 0x100, 0, 0, 0, 0, 0, 0];
    let copy: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    let sample = StackSample {
        registers: Registers {
            ip: code + 8,
            sp: STACK,
            fp: STACK + 16,
            lr: 0,
        },
        copy: copy.into(),
        bounded: false,
        interpreter: FrameSample::default(),
    };
    resolver.resolve(KEY, &sample)
}

fn note(stack: &Stack) -> &str {
    stack.note.as_deref().unwrap_or_default()
}

#[test]
fn java_frames_found_by_frame_pointers_say_so_named_or_not() {
    let proc_root = tempfile::tempdir().expect("a folder");
    process(proc_root.path(), &[&code(CODE), LIBJVM]);
    let unnamed = resolve(&mut resolver(proc_root.path()), CODE);
    assert_eq!(unnamed.frames.len(), 2);
    let label = "2 Java frames without name: libjvm.so is no ELF file that can be read; \
                 --java-perfmap names what was compiled; no unwind tables for its JVM's code";
    assert!(note(&unnamed).contains(label), "{unnamed:#?}");
    assert!(note(&unnamed).ends_with(GUESSED), "{unnamed:#?}");

    write_perf_map(proc_root.path(), &format!("{CODE:x} 1000 Orders.get\n"));
    let named = resolve(&mut resolver(proc_root.path()), CODE);
    let name = |at: usize| named.frames[at].function.as_deref();
    assert_eq!([0, 1].map(name), [Some("Orders.get"); 2]);
    let label = "no unwind tables for its JVM's code: libjvm.so is no ELF file that can be read";
    assert!(note(&named).contains(label), "{named:#?}");
    assert!(note(&named).ends_with(GUESSED), "{named:#?}");
}

#[test]
fn a_jvm_that_was_loaded_meanwhile_is_looked_at_before_its_frames_are_walked() {
    let proc_root = tempfile::tempdir().expect("a folder");
    process(proc_root.path(), &[&code(CODE)]);
    let mut resolver = resolver(proc_root.path());
    resolver.observe(KEY);
    process(proc_root.path(), &[&code(LATER_CODE), LIBJVM]);
    let stack = resolve(&mut resolver, LATER_CODE);
    assert_eq!(stack.frames.len(), 2);
    assert!(note(&stack).ends_with(GUESSED), "{stack:#?}");
}

/// V8 and others keep frame pointers everywhere.
#[test]
fn other_code_made_at_run_time_is_believed() {
    let proc_root = tempfile::tempdir().expect("a folder");
    process(proc_root.path(), &[&code(CODE)]);
    let stack = resolve(&mut resolver(proc_root.path()), CODE);
    assert_eq!(stack.frames.len(), 2);
    assert!(!note(&stack).contains(GUESSED), "{stack:#?}");
}
