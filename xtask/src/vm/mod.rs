//! Virtual machines with Debian's kernels: the kernel tests on every kernel with every probe family.

mod cargo;
mod contents;
mod debian;
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
mod table;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use kernels::Series;
use matrix::{Family, Matrix};

/// What the machines are made of; also what `SystemdGuest` needs.
const PACKAGES: [&str; 6] = [
    "qemu-system-x86",
    "mmdebstrap",
    "e2fsprogs",
    "redis-server",
    "iproute2",
    "python3.11",
];
/// The unpacked root stays in memory beside the archive it came from.
const MEMORY_BASE_MIB: u64 = 768;

/// Run the kernel tests in virtual machines
#[derive(Debug, clap::Args)]
pub(crate) struct VmTest {
    /// Only this kernel series; repeatable
    #[arg(long, value_enum, value_name = "SERIES")]
    kernel: Vec<Series>,
    /// Only this probe family; repeatable
    #[arg(long, value_enum, value_name = "FAMILY")]
    family: Vec<Family>,
    /// Machines at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Seconds one machine may take
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    time_limit: u64,
}

impl VmTest {
    /// Fails with 1 when a test failed, with 2 when a machine broke and no test failed.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let started = Instant::now();
        setup()?;
        let kernels = kernels::fetch(
            &or_all(&self.kernel, &Series::ALL),
            &cache()?.join("kernels"),
        )?;
        for kernel in &kernels {
            eprintln!("kernel {}: {}", kernel.series, kernel.package);
        }
        let tracer = cargo::build_tracer(workspace())?;
        let tests = cargo::TestPackage::build(workspace())?;
        let dir = workspace().join("target/vm");
        std::fs::create_dir_all(&dir)
            .with_context(|| format!("failed to create {}", dir.display()))?;
        let archive = dir.join("initramfs.cpio");
        let size_bytes =
            contents::initramfs(&tracer, &tests, self.only.as_deref())?.write(&archive)?;
        let size_mib = size_bytes / (1024 * 1024);
        eprintln!("initramfs: {size_mib} MiB");
        let matrix = Matrix {
            initramfs: &archive,
            memory_mib: u32::try_from(MEMORY_BASE_MIB + 2 * size_mib)?,
            time_limit: Duration::from_secs(self.time_limit),
            logs: dir.join("logs"),
            jobs: self.jobs,
        };
        let cells = matrix.run(&kernels, &or_all(&self.family, &Family::ALL))?;
        writeln!(std::io::stdout(), "{}", table::Table(&cells))?;
        eprintln!("{:.0} s in all", started.elapsed().as_secs_f32());
        Ok(verdict(&cells))
    }
}

fn verdict(cells: &[matrix::Cell]) -> ExitCode {
    if cells
        .iter()
        .any(|cell| cell.outcome.is_ok() && cell.failed())
    {
        ExitCode::from(1)
    } else if cells.iter().any(matrix::Cell::failed) {
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
                .args(["install", "-q", "-y", "--no-install-recommends"])
                .args(&missing)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )
    };
    if install().is_err() {
        // On a fresh machine the lists are old or missing.
        debian::run(Command::new("apt-get").args(["-q", "update"]))?;
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

fn cache() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").context("failed to find the cache: HOME is not set")?;
    Ok(PathBuf::from(home).join(".cache/connleak"))
}

fn workspace() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}
