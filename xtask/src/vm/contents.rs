//! What stands in a test machine: the tracer, the tests, a Redis, a Python and a Ruby.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workspace::Workspace;

use super::artifacts::{self, TestPackage};
use super::initramfs::Initramfs;
use super::matrix::Family;
use super::protocol::{PLAN_PATH, Plan, Step, StepKind};

/// Of the machine that builds; all are Debian's.
const PROGRAMS: [&str; 11] = [
    "/usr/bin/redis-server",
    "/usr/bin/redis-cli",
    "/usr/bin/redis-benchmark",
    "/usr/bin/python3.11",
    "/usr/bin/ruby3.1",
    "/usr/bin/ss",
    "/usr/sbin/ip",
    "/usr/bin/dash",
    "/usr/bin/cat",
    "/usr/bin/sleep",
    "/usr/bin/ls",
];
const PYTHON_LIBRARY: &str = "/usr/lib/python3.11";
/// Large, and of no use to a Redis client.
const PYTHON_LEFT_OUT: [&str; 9] = [
    "test",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "pydoc_data",
    "distutils",
    "config-3.11-x86_64-linux-gnu",
];
/// What Debian's interpreter looks into on its own.
const PYTHON_PACKAGES: &str = "/usr/lib/python3/dist-packages";
/// What Ruby loads to open a socket; libraries of its own among them.
const RUBY_FILES: [&str; 5] = [
    "/usr/lib/ruby/3.1.0/socket.rb",
    "/usr/lib/x86_64-linux-gnu/ruby/3.1.0/enc/encdb.so",
    "/usr/lib/x86_64-linux-gnu/ruby/3.1.0/enc/trans/transdb.so",
    "/usr/lib/x86_64-linux-gnu/ruby/3.1.0/io/wait.so",
    "/usr/lib/x86_64-linux-gnu/ruby/3.1.0/socket.so",
];
/// `CONNLEAK_CLIENTS` in the machine.
const CLIENTS: &str = "/clients";
/// Longer than a test's own deadlines there (20 s, stretched fivefold), which say what was awaited,
/// and than ten thousand operations take.
const TEST_TIME_LIMIT_S: u64 = 600;
const DOCTOR: &str = "doctor";
/// Their subject is the same whatever hook gave an event: a kernel's first machine runs them.
const WHATEVER_FAMILY: [&str; 5] = [
    "kernel_machine",
    "kernel_recording",
    // Its walk is CPython's, which every family takes.
    "kernel_ruby",
    "kernel_select",
    "kernel_terminal",
];

/// Builds the one archive that all kernels and families boot.
pub(super) fn initramfs(
    workspace: &Workspace,
    tracer: &Path,
    tests: &TestPackage,
    only: Option<&str>,
    families: &[Family],
) -> Result<Initramfs> {
    let mut root = Initramfs::new();
    root.program("init", tests.program("guest_init")?)?;
    let tracer = artifacts::stripped(workspace, "connleak", tracer)?;
    root.program("usr/bin/connleak", &tracer)?;
    for program in PROGRAMS.into_iter().chain(RUBY_FILES) {
        root.program(program, Path::new(program))
            .context("the virtual machines' programs come from Debian: cargo xtask setup --vm")?;
    }
    root.symlink("usr/bin/sh", "dash");
    root.symlink("usr/bin/python3", "python3.11");
    python(&mut root)?;
    redis_py(&mut root, workspace)?;
    for (name, path) in &tests.programs {
        root.program(&format!("{CLIENTS}/{name}"), path)?;
    }
    for path in tests.clients(workspace)? {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        root.program(&format!("{CLIENTS}/{name}"), &path)?;
    }
    let mut steps = Vec::new();
    for (name, path) in tests.stripped_kernel_tests(workspace)? {
        let place = format!("/tests/{name}");
        root.program(&place, &path)?;
        let whatever_family = WHATEVER_FAMILY.contains(&name.as_str());
        steps.push(Step {
            family: families
                .first()
                .filter(|_| whatever_family)
                .map(ToString::to_string),
            name,
            argv: vec![place],
            time_limit_s: TEST_TIME_LIMIT_S,
            kind: StepKind::TestBinary,
        });
    }
    steps.push(Step {
        family: None,
        name: DOCTOR.to_owned(),
        argv: [
            "/usr/bin/connleak",
            "doctor",
            "-o",
            "json",
            "--probes",
            "{family}",
        ]
        .map(str::to_owned)
        .to_vec(),
        time_limit_s: 60,
        kind: StepKind::Capture,
    });
    let machines = families.len().to_string();
    let plan = Plan {
        env: [
            ("CONNLEAK_BIN", "/bin/connleak"),
            // What one kernel is to do is shared among its machines.
            ("CONNLEAK_MACHINES", &machines),
            ("CONNLEAK_CLIENTS", CLIENTS),
            ("CONNLEAK_PYTHON", "/usr/bin/python3.11"),
            // Software emulation: stretches deadlines only.
            ("CONNLEAK_SLOW", "5"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into(),
        steps,
        only: only.map(str::to_owned),
    };
    root.text(PLAN_PATH, &serde_json::to_string(&plan)?);
    Ok(root)
}

fn python(root: &mut Initramfs) -> Result<()> {
    root.tree(Path::new(PYTHON_LIBRARY), PYTHON_LIBRARY, &|path| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        let parent_is_library = path.parent() == Some(Path::new(PYTHON_LIBRARY));
        !(parent_is_library && PYTHON_LEFT_OUT.contains(&name))
    })?;
    // Extension modules bring libraries of their own: ssl, sqlite, ffi.
    let extensions = Path::new(PYTHON_LIBRARY).join("lib-dynload");
    for entry in std::fs::read_dir(&extensions)
        .with_context(|| format!("failed to read {}", extensions.display()))?
    {
        let path: PathBuf = entry?.path();
        root.program(&path.to_string_lossy(), &path)?;
    }
    Ok(())
}

/// The packages of setup's virtual environment; pure Python, so whichever interpreter installed them.
fn redis_py(root: &mut Initramfs, workspace: &Workspace) -> Result<()> {
    let lib = workspace.cache.join("venv/lib");
    let failed = || {
        format!(
            "failed to find redis-py in {}; run `cargo xtask setup`",
            lib.display()
        )
    };
    let python = std::fs::read_dir(&lib)
        .with_context(failed)?
        .flatten()
        .next()
        .with_context(failed)?;
    let packages = python.path().join("site-packages");
    root.tree(&packages, PYTHON_PACKAGES, &|path| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        !["pip", "setuptools"].contains(&name)
    })
}
