//! A machine whose PID 1 is a real systemd: units and programs go in, checks run as a service.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::artifacts::TestPackage;
use super::disk::{self, Disk};
use super::kernels::Kernel;
use super::protocol::{PLAN_PATH, Plan, Step, StepKind};
use super::qemu::{Boot, Broken, Machine};
use crate::workspace::Workspace;

const RUNNER: &str = "/usr/local/bin/guest_init";
const RUNNER_UNIT: &str = "connleak-checks.service";
const UNITS: &str = "/etc/systemd/system";
const CHECKS: &str = "/usr/local/lib/connleak-checks";
const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";
const CHECK_TIME_LIMIT_S: u64 = 300;

/// What is put into the machine and asked of it.
#[derive(Debug, Default)]
pub(crate) struct SystemdGuest {
    /// Absolute path without links (/usr/lib, not /lib), and the file it is copied from.
    pub(crate) files: Vec<(String, PathBuf)>,
    /// Name and text; enabled in multi-user.target if the text has a `WantedBy=`.
    pub(crate) units: Vec<(String, String)>,
    /// Name and shell script. Each passes when it exits with 0; its output is shown when it does not.
    pub(crate) scripts: Vec<(String, String)>,
}

impl SystemdGuest {
    /// Everything in `tests/systemd`: units by their suffix, the scripts `*.sh` as checks; and connleak.
    pub(crate) fn of_tests(workspace: &Workspace, tracer: &Path) -> Result<Self> {
        let dir = workspace.root.join("tests/systemd");
        let mut guest = Self {
            files: ["/usr/local/bin/connleak", "/usr/bin/connleak"]
                .map(|place| (place.to_owned(), tracer.to_path_buf()))
                .into(),
            ..Self::default()
        };
        guest.units.push(own_unit(workspace)?);
        let listing =
            std::fs::read_dir(&dir).with_context(|| format!("failed to read {}", dir.display()))?;
        let mut paths: Vec<PathBuf> = listing.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("failed to read {}", path.display()))?;
            let name = |n: Option<&std::ffi::OsStr>| n.map(|n| n.to_string_lossy().into_owned());
            match path.extension().and_then(|e| e.to_str()) {
                Some("sh") => guest
                    .scripts
                    .push((name(path.file_stem()).unwrap_or_default(), text)),
                Some("service" | "socket" | "timer" | "target" | "slice") => guest
                    .units
                    .push((name(path.file_name()).unwrap_or_default(), text)),
                // What scripts and units use: clients, configuration.
                _ => guest.files.push((
                    format!("{CHECKS}/{}", name(path.file_name()).unwrap_or_default()),
                    path,
                )),
            }
        }
        Ok(guest)
    }

    /// Boots to the verdict; a broken machine is booted once more.
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
        let machine = Machine {
            name: format!("{}-systemd", kernel.series),
            kernel: kernel.image.clone(),
            initramfs: None,
            disk: Some(disk),
            parameters: "root=/dev/nvme0n1 rw systemd.show_status=0 systemd.getty_auto=no"
                .to_owned(),
            memory_mib: 1024,
            time_limit,
            logs,
        };
        let boot = machine.boot()?;
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
        let mut plan = Plan::default();
        for (name, text) in &self.scripts {
            let place = format!("{CHECKS}/{name}.sh");
            disk.text(&place, text)?;
            plan.steps
                .push(step(name, &["/bin/bash", &place], StepKind::Check));
        }
        let journal = ["/usr/bin/journalctl", "--boot", "--no-pager", "--lines=300"];
        plan.steps
            .push(step("journal", &journal, StepKind::Capture));
        disk.text(PLAN_PATH, &serde_json::to_string(&plan)?)?;
        disk.write()
    }
}

/// The unit that ships, not enabled: a check starts it when its configuration is there.
fn own_unit(workspace: &Workspace) -> Result<(String, String)> {
    let path = workspace.root.join("tracer-user/dist/connleak.service");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("failed to read {}", path.display()))?;
    let (kept, _) = text.split_once("[Install]").unwrap_or((&text, ""));
    Ok(("connleak.service".to_owned(), kept.to_owned()))
}

fn step(name: &str, argv: &[&str], kind: StepKind) -> Step {
    Step {
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
