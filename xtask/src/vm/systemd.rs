//! A machine whose PID 1 is a real systemd: units and programs go in, checks run as a service.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::artifacts::TestPackage;
use super::disk::{self, Disk};
use super::kernels::Kernel;
use super::protocol::{PLAN_PARAMETER, PLAN_PATH, Plan, Step, StepKind};
use super::qemu::{Boot, Broken, Machine};
use crate::dist;
use crate::workspace::Workspace;

const RUNNER: &str = "/usr/local/bin/guest_init";
const RUNNER_UNIT: &str = "connleak-checks.service";
const UNITS: &str = "/etc/systemd/system";
const CHECKS: &str = "/usr/local/lib/connleak-checks";
const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";
const CHECK_TIME_LIMIT_S: u64 = 600;

/// The second boot of the same disk, after the first one lost its power.
const SECOND_PLAN_PATH: &str = "/plan.second";

/// What is put into the machine and asked of it.
#[derive(Debug, Default)]
pub(crate) struct SystemdGuest {
    /// Absolute path without links (/usr/lib, not /lib), and the file it is copied from.
    pub(crate) files: Vec<(String, PathBuf)>,
    /// Name and text; enabled in multi-user.target if the text has a `WantedBy=`.
    pub(crate) units: Vec<(String, String)>,
    /// Name and shell script. Each passes when it exits with 0; its output is shown when it does not.
    pub(crate) scripts: Vec<(String, String)>,
    /// Those of the second boot.
    pub(crate) second_scripts: Vec<(String, String)>,
}

impl SystemdGuest {
    /// Everything in `tests/systemd`: units by their suffix, the scripts `*.sh` as checks; and the
    /// package of connleak, which a check installs.
    pub(crate) fn of_tests(workspace: &Workspace, tracer: &Path) -> Result<Self> {
        let dir = workspace.root.join("tests/systemd");
        let package = dist::package(workspace, tracer)?;
        let mut guest = Self {
            files: vec![(format!("{CHECKS}/connleak.deb"), package)],
            second_scripts: scripts(&dir.join("second_boot"))?,
            scripts: scripts(&dir)?,
            ..Self::default()
        };
        for path in listing(&dir)? {
            let name = name(path.file_name());
            match path.extension().and_then(|e| e.to_str()) {
                Some("sh") => {}
                Some("service" | "socket" | "timer" | "target" | "slice") => {
                    guest.units.push((name, read(&path)?));
                }
                // What scripts and units use: clients, configuration.
                _ => guest.files.push((format!("{CHECKS}/{name}"), path)),
            }
        }
        Ok(guest)
    }

    /// Boots to the verdict, twice from the same disk; a broken machine is booted once more.
    pub(crate) fn boot(
        &self,
        workspace: &Workspace,
        kernel: &Kernel,
        tests: &TestPackage,
        time_limit: Duration,
    ) -> Result<std::result::Result<Boot, Broken>> {
        let dir = workspace.root.join("target/vm");
        let logs = dir.join("logs");
        std::fs::create_dir_all(&logs)
            .with_context(|| format!("failed to create {}", logs.display()))?;
        let base = disk::base(&workspace.cache.join("systemd"))?;
        let image = dir.join(format!("{}-systemd.ext4", kernel.series));
        let disk = self.disk(&base, &image, tests)?;
        let machine = |name: &str, parameter: String| Machine {
            name: format!("{}-{name}", kernel.series),
            kernel: kernel.image.clone(),
            initramfs: None,
            disk: Some(disk.clone()),
            parameters: format!(
                "root=/dev/nvme0n1 rw systemd.show_status=0 systemd.getty_auto=no {parameter}"
            ),
            memory_mib: 1024,
            time_limit,
            logs: logs.clone(),
        };
        let mut boot = machine("systemd", String::new()).boot()?;
        if let Ok(first) = &mut boot {
            let parameter = format!("{PLAN_PARAMETER}{SECOND_PLAN_PATH}");
            match machine("systemd-second", parameter).boot()? {
                Ok(second) => first.append(second),
                Err(broken) => boot = Err(broken),
            }
        }
        // Sparse, but still hundreds of megabytes a kernel.
        std::fs::remove_file(&image)
            .with_context(|| format!("failed to remove {}", image.display()))?;
        Ok(boot)
    }

    fn disk(&self, base: &Path, image: &Path, tests: &TestPackage) -> Result<PathBuf> {
        let mut disk = Disk::copy(base, image)?;
        disk.file(RUNNER, tests.program("guest_init")?);
        disk.text("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")?;
        for (path, from) in &self.files {
            disk.file(path, from);
        }
        for (name, text) in self.units.iter().chain([&runner_unit()]) {
            disk.text(&format!("{UNITS}/{name}"), text)?;
            if text.contains("WantedBy=") {
                disk.symlink(&format!("{WANTS}/{name}"), &format!("{UNITS}/{name}"));
            }
        }
        plan(&mut disk, PLAN_PATH, &self.scripts)?;
        plan(&mut disk, SECOND_PLAN_PATH, &self.second_scripts)?;
        disk.write()
    }
}

/// One boot: its scripts, then the journal.
fn plan(disk: &mut Disk, path: &str, scripts: &[(String, String)]) -> Result<()> {
    let mut plan = Plan::default();
    for (name, text) in scripts {
        let place = format!("{CHECKS}/{name}.sh");
        disk.text(&place, text)?;
        plan.steps
            .push(step(name, &["/bin/bash", &place], StepKind::Check));
    }
    let journal = ["/usr/bin/journalctl", "--boot", "--no-pager", "--lines=300"];
    plan.steps
        .push(step("journal", &journal, StepKind::Capture));
    disk.text(path, &serde_json::to_string(&plan)?)
}

/// The scripts of a directory in the order of their names.
fn scripts(dir: &Path) -> Result<Vec<(String, String)>> {
    let paths = listing(dir)?.into_iter();
    paths
        .filter(|path| path.extension().is_some_and(|it| it == "sh"))
        .map(|path| Ok((name(path.file_stem()), read(&path)?)))
        .collect()
}

fn listing(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("failed to read {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.is_file());
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))
}

fn name(part: Option<&OsStr>) -> String {
    part.map(|part| part.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn step(name: &str, argv: &[&str], kind: StepKind) -> Step {
    Step {
        family: None,
        name: name.to_owned(),
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        time_limit_s: CHECK_TIME_LIMIT_S,
        kind,
    }
}

/// Runs last, so that a check finds the units that are wanted at boot.
fn runner_unit() -> (String, String) {
    let text = format!(
        "[Unit]\nDescription=The checks of this machine\nAfter=redis-server.service\n\n\
         [Service]\nType=exec\nExecStart={RUNNER} service\n\
         StandardOutput=tty\nStandardError=tty\nTTYPath=/dev/ttyS0\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    );
    (RUNNER_UNIT.to_owned(), text)
}
