//! Virtual machines with Debian's kernels: the kernel tests on every kernel with every probe family.

mod artifacts;
mod contents;
mod disk;
mod initramfs;
mod kernels;
mod matrix;
mod newc;
#[expect(
    unreachable_pub,
    reason = "the file belongs to the tests package, where these are public"
)]
#[path = "../../../tests/src/guest/protocol.rs"]
mod protocol;
mod qemu;
mod systemd;
mod table;
mod verified;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::debian;
use crate::setup::{Scope, Wording};
use crate::workspace::Workspace;
use artifacts::TestPackage;
use kernels::{Kernel, Series};
use matrix::{Cell, Family, Matrix};
use protocol::Counts;
use systemd::SystemdGuest;
use verified::Verified;

/// What the machines are made of; also what `SystemdGuest` needs.
const PACKAGES: [&str; 7] = [
    "qemu-system-x86",
    "mmdebstrap",
    "e2fsprogs",
    "redis-server",
    "iproute2",
    "python3.11",
    "ruby3.1",
];
/// A fresh machine may still be installing what it came to be with.
const LOCK_PATIENCE: [&str; 2] = ["-o", "DPkg::Lock::Timeout=600"];
/// The unpacked root stays in memory beside the archive it came from.
const MEMORY_BASE_MIB: u64 = 768;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this kernel series; repeatable
    #[arg(long, value_enum, value_name = "SERIES")]
    kernel: Vec<Series>,
    /// Only this probe family; repeatable
    #[arg(long, value_enum, value_name = "FAMILY")]
    family: Vec<Family>,
    /// The checks of tests/systemd on a disk with a real systemd, and nothing else
    #[arg(long, conflicts_with_all = ["family", "only"])]
    systemd: bool,
    /// Machines at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Only tests whose binary::test contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Put the verified instruction counts on record (tests/golden)
    #[arg(long)]
    keep_counts: bool,
    /// Seconds one machine may take
    #[arg(long, default_value_t = 2400, value_name = "SECONDS")]
    time_limit: u64,
}

/// Fails with 1 when a test failed, with 2 when a machine broke and no test failed.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let began = Instant::now();
    crate::setup::run(workspace, Scope::Tests, Wording::Changes)?;
    setup()?;
    let series = or_all(&args.kernel, &Series::ALL);
    let kernels = kernels::fetch(&series, &workspace.cache.join("kernels"))?;
    for kernel in &kernels {
        eprintln!("kernel {}: {}", kernel.series, kernel.package);
    }
    let tracer = crate::build::run(workspace)?;
    let tests = TestPackage::build(workspace)?;
    let cells = if args.systemd {
        systemd_cells(workspace, args, &kernels, &tracer, &tests)?
    } else {
        family_cells(workspace, args, &kernels, &tracer, &tests)?
    };
    println!("{}", table::Table(&cells));
    if args.keep_counts {
        Verified::of(&cells).keep(&workspace.root)?;
    }
    account(&cells, began);
    Ok(verdict(&cells))
}

fn family_cells(
    workspace: &Workspace,
    args: &Args,
    kernels: &[Kernel],
    tracer: &Path,
    tests: &TestPackage,
) -> Result<Vec<Cell>> {
    let dir = workspace.root.join("target/vm");
    std::fs::create_dir_all(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
    let families = or_all(&args.family, &Family::ALL);
    let only = args.only.as_deref();
    let root = contents::initramfs(workspace, tracer, tests, only, &families)?;
    let initramfs = dir.join("initramfs.cpio");
    let size_mib = root.write(&initramfs)? / (1024 * 1024);
    eprintln!("initramfs: {size_mib} MiB");
    let matrix = Matrix {
        initramfs: &initramfs,
        memory_mib: u32::try_from(MEMORY_BASE_MIB + 2 * size_mib)?,
        time_limit: Duration::from_secs(args.time_limit),
        logs: dir.join("logs"),
        jobs: args.jobs,
    };
    matrix.run(kernels, &families)
}

fn systemd_cells(
    workspace: &Workspace,
    args: &Args,
    kernels: &[Kernel],
    tracer: &Path,
    tests: &TestPackage,
) -> Result<Vec<Cell>> {
    let guest = SystemdGuest::of_tests(workspace, tracer)?;
    let time_limit = Duration::from_secs(args.time_limit);
    let mut cells = Vec::new();
    for kernel in kernels {
        cells.push(Cell {
            series: kernel.series,
            family: Family::Systemd,
            outcome: guest.boot(workspace, kernel, tests, time_limit)?,
        });
        matrix::report(&cells[cells.len() - 1], cells.len(), kernels.len());
    }
    Ok(cells)
}

/// The closing line, as `cargo xtask test` ends: a broken machine is one failure more.
fn account(cells: &[Cell], began: Instant) {
    let counts: Vec<Counts> = cells
        .iter()
        .filter_map(|cell| cell.outcome.as_ref().ok())
        .map(|boot| boot.counts)
        .collect();
    let sum = |of: fn(&Counts) -> u32| counts.iter().map(of).sum::<u32>();
    let broken = cells.len() - counts.len();
    println!(
        "vm-test: {}: {} passed, {} failed, {} skipped in {} s",
        if cells.iter().any(Cell::failed) {
            "FAILED"
        } else {
            "ok"
        },
        sum(|counts| counts.passed),
        sum(|counts| counts.failed) + broken as u32,
        sum(|counts| counts.skipped),
        began.elapsed().as_secs()
    );
}

fn verdict(cells: &[Cell]) -> ExitCode {
    if cells
        .iter()
        .any(|cell| cell.outcome.is_ok() && cell.failed())
    {
        ExitCode::from(1)
    } else if cells.iter().any(Cell::failed) {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    }
}

fn or_all<T: Copy>(chosen: &[T], all: &[T]) -> Vec<T> {
    if chosen.is_empty() { all } else { chosen }.to_vec()
}

/// Installs what the machines are made of; returns what had to be installed.
pub(crate) fn setup() -> Result<Vec<&'static str>> {
    let missing: Vec<&str> = PACKAGES
        .into_iter()
        .filter(|package| !is_installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(missing);
    }
    eprintln!("virtual machines: installing {}", missing.join(" "));
    let install = || {
        debian::run(
            Command::new("apt-get")
                .args(LOCK_PATIENCE)
                .args(["install", "-q", "-y", "--no-install-recommends"])
                .args(&missing)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )
    };
    if install().is_err() {
        // On a fresh machine the lists are old or missing.
        debian::run(
            Command::new("apt-get")
                .args(LOCK_PATIENCE)
                .args(["-q", "update"]),
        )?;
        install().with_context(|| format!("failed to install {}", missing.join(" ")))?;
    }
    Ok(missing)
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}
