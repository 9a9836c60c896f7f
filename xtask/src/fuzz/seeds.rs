//! Seeds: inputs with the shape of the real thing, made from what this machine has.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::step;
use crate::workspace::Workspace;

/// As the target `elf` takes a stack: so many words before the file.
const STACK_WORDS: u64 = 32;
/// Where a program that is not position independent has its code, and the target its stack.
const CODE: u64 = 0x40_1000;
const STACK: u64 = 0x7ffc_0000_0000;

const PROGRAM: &str = "static inline int twice(int n) { return n * 2; }\n\
    __attribute__((noinline)) int get_client(int n) { return twice(n) + 3; }\n\
    int _start(void) { return get_client(7) + 1; }\n";
/// Plain, compressed, older debug information, tables for a debugger only, none at all, symbols
/// only, and a library.
const BUILDS: [(&str, &[&str]); 7] = [
    ("plain", &["-g", "-no-pie", "-static"]),
    ("compressed", &["-g", "-gz", "-no-pie", "-static"]),
    ("dwarf_3", &["-gdwarf-3", "-no-pie", "-static"]),
    (
        "debug_frame",
        &[
            "-g",
            "-no-pie",
            "-static",
            "-fno-asynchronous-unwind-tables",
        ],
    ),
    ("stripped", &["-s", "-no-pie", "-static"]),
    ("symbols", &["-no-pie", "-static"]),
    ("library", &["-g", "-fPIC", "-shared"]),
];

/// As a JVM, V8 and CPython write them.
const PERF_MAP: &str = "\
    7f0e4c5a0000 0000000000000240 java.net.Socket Orders.getClient(java.lang.String, int)\n\
    0x00007f0e4c5a0400 0x80 StubRoutines (1)\n\
    7f0e4c5a0100 40 JS:*get /srv/a.js:1:2\n\
    7f0e4c5a0500 b py::main:/srv/worker.py\n";

const SYMBOL_NAMES: [&str; 4] = [
    "_ZN6orders12handle_order17h0123456789abcdefE",
    "_RNvNtCs1234_6orders5inner10get_client",
    "_ZNSt6vectorIiSaIiEE9push_backERKi",
    "_ZZN5cache10get_clientEiENKUlvE_clEv",
];

/// An epilogue with a branch, `leave`, `lea` from the frame pointer, a jump, a call.
const CODES: [&[u8]; 4] = [
    b"\x85\xc0\x75\x01\x90\x48\x83\xc4\x18\x5b\x5d\xc3",
    b"\xc9\xc3",
    b"\x48\x8d\x65\xd8\x5b\x41\x5c\x41\x5d\x41\x5e\x41\x5f\x5d\xc3",
    b"\xeb\x02\x90\x90\xe8\x00\x00\x00\x00\x48\x89\xec\x5d\xc2\x08\x00",
];

/// Writes a folder of seeds for each target that has some beside those checked in.
pub(super) fn write(workspace: &Workspace, corpus: &Path) -> Result<()> {
    let put = |target: &str, name: &str, bytes: &[u8]| {
        let dir = corpus.join(target);
        fs::create_dir_all(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
        let path = dir.join(name);
        fs::write(&path, bytes).with_context(|| format!("failed to write {}", path.display()))
    };
    let sources = workspace.root.join("tracer-user/src");
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("failed to read {}", path.display()));

    for (name, flags) in BUILDS {
        put("elf", name, &small_program(flags)?)?;
    }
    let recording = workspace.root.join("tests/fixtures/leaky_pool.rec");
    put("recording", "leaky_pool", &read(&recording)?)?;
    put("perf_map", "runtimes", PERF_MAP.as_bytes())?;
    put("symbols", "interpreters", &symbol_table())?;
    for (index, name) in SYMBOL_NAMES.iter().enumerate() {
        // No symbols, and a name.
        put(
            "symbols",
            &index.to_string(),
            format!("\0{name}").as_bytes(),
        )?;
    }
    for (index, code) in CODES.iter().enumerate() {
        put("code", &index.to_string(), code)?;
    }
    for name in ["maps", "stat", "status", "cmdline", "cgroup"] {
        put("proc", name, &read(&Path::new("/proc/self").join(name))?)?;
    }
    let cgroups = sources.join("process/cgroup_examples.txt");
    put("proc", "cgroups", &read(&cgroups)?)?;
    for (name, memory) in python_memories(workspace)? {
        put("python_memory", &name, &memory)?;
    }
    Ok(())
}

/// A program of few functions, after a stack whose words lead into its code and to each other.
fn small_program(flags: &[&str]) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir().context("failed to make a folder")?;
    let program = dir.path().join("a");
    fs::write(dir.path().join("a.c"), PROGRAM).context("failed to write a C file")?;
    let mut compile = Command::new("cc");
    compile.current_dir(dir.path());
    compile.args(["-O1", "-nostdlib"]).args(flags);
    // The same each time: the folder's own name is another.
    compile.arg(format!("-ffile-prefix-map={}=/srv", dir.path().display()));
    compile.args(["-o", "a", "a.c"]);
    step::run("compile a seed", &mut compile)?;
    let mut bytes: Vec<u8> = (0..STACK_WORDS)
        .flat_map(|index| match index % 3 {
            1 => (STACK + index * 8).to_le_bytes(),
            _ => (CODE + 2 + index % 16).to_le_bytes(),
        })
        .collect();
    bytes.extend(fs::read(&program).context("failed to read the seed")?);
    Ok(bytes)
}

/// What the interpreters are known by, as the target `symbols` takes it.
fn symbol_table() -> Vec<u8> {
    let names = [
        "_PyRuntime",
        "PyCode_Type",
        "PyUnicode_Type",
        "Py_Version",
        "executor_globals",
    ];
    let mut texts = vec![0_u8];
    let mut table = vec![names.len() as u8];
    for (index, name) in names.iter().enumerate() {
        table.extend((texts.len() as u32).to_le_bytes());
        // Type and visibility, then a section.
        table.extend([0x11, 0, 1, 0]);
        table.extend((0x1000_u64 * (index as u64 + 1)).to_le_bytes());
        table.extend(8_u64.to_le_bytes());
        texts.extend(name.as_bytes());
        texts.push(0);
    }
    table.extend(texts);
    table
}

/// Each CPython of this machine writes down some of its own memory.
fn python_memories(workspace: &Workspace) -> Result<Vec<(String, Vec<u8>)>> {
    let script = workspace.root.join("tests/fuzz/python_memory.py");
    let pythons = workspace.pythons();
    let entries =
        fs::read_dir(&pythons).with_context(|| format!("failed to list {}", pythons.display()))?;
    let mut memories = Vec::new();
    for entry in entries.flatten() {
        let mut python = Command::new(entry.path().join("python"));
        python.current_dir(&workspace.root).arg(&script);
        let output = python
            .output()
            .with_context(|| format!("failed to run {}", entry.path().display()))?;
        anyhow::ensure!(
            output.status.success(),
            "failed to record the memory of {}: {}",
            entry.path().display(),
            String::from_utf8_lossy(&output.stderr)
        );
        let name = entry.file_name().to_string_lossy().into_owned();
        memories.push((name, output.stdout));
    }
    Ok(memories)
}
