//! CPUs: which of them a process may use, as `CPUAffinity=` and as `AllowedCPUs=` say it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The calling thread, and what it starts meanwhile, runs on these CPUs alone.
pub(crate) struct Affinity {
    before: libc::cpu_set_t,
}

impl Affinity {
    pub(crate) fn on(cpus: &[usize]) -> Result<Self> {
        let before = allowed()?;
        allow(&set_of(cpus))?;
        Ok(Self { before })
    }
}

impl Drop for Affinity {
    fn drop(&mut self) {
        // What was allowed is allowed again; a CPU that went offline meanwhile is the machine's.
        let _ = allow(&self.before);
    }
}

/// The CPUs that this thread may use.
pub(crate) fn usable() -> Result<Vec<usize>> {
    let set = allowed()?;
    let cpus = 0..libc::CPU_SETSIZE as usize;
    // SAFETY: the set is valid, and the CPU is below its size.
    Ok(cpus
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect())
}

fn set_of(cpus: &[usize]) -> libc::cpu_set_t {
    // SAFETY: all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        // SAFETY: the set is valid; CPU_SET leaves alone what is beyond its size.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    set
}

fn allowed() -> Result<libc::cpu_set_t> {
    let mut set = set_of(&[]);
    // SAFETY: the set is valid for the call, and of the size that is said.
    let failed = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    ensure!(failed == 0, "failed to ask for this thread's CPUs");
    Ok(set)
}

fn allow(set: &libc::cpu_set_t) -> Result<()> {
    // SAFETY: the set is valid for the call, and of the size that is said.
    let failed = unsafe { libc::sched_setaffinity(0, size_of_val(set), set) };
    ensure!(failed == 0, "failed to set this thread's CPUs");
    Ok(())
}

/// Whoever is written here is moved; 0 is the one that writes (cgroups(7)).
const PROCESSES: &str = "cgroup.procs";

/// A control group whose processes have some of the CPUs; gone when it is dropped.
pub(crate) struct Cpuset(PathBuf);

impl Cpuset {
    /// `None` where no cpuset controller is to be had.
    pub(crate) fn of(cpus: &[usize]) -> Result<Option<Self>> {
        let Some(root) = root() else {
            return Ok(None);
        };
        let dir = root.join(format!("connleak-bench-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
        let group = Self(dir);
        let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
        group.write("cpuset.cpus", &cpus.join(","))?;
        let mems = fs::read_to_string(root.join("cpuset.mems")).unwrap_or_default();
        if !mems.trim().is_empty() {
            // The first version takes no process before it has memory to give.
            group.write("cpuset.mems", mems.trim())?;
        }
        Ok(Some(group))
    }

    /// The calling process, and what it starts, is in the group until the guard is dropped.
    pub(crate) fn enter(&self) -> Result<Within<'_>> {
        let back = self.0.parent().context("a group has a parent")?;
        self.write(PROCESSES, "0")?;
        Ok(Within { back })
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.0.join(file);
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
    }
}

impl Drop for Cpuset {
    fn drop(&mut self) {
        // Busy while a process ends that is in it: then it stays, and is empty.
        let _ = fs::remove_dir(&self.0);
    }
}

pub(crate) struct Within<'a> {
    back: &'a Path,
}

impl Drop for Within<'_> {
    fn drop(&mut self) {
        // Refused, the bench stays where nothing is that it measures.
        let _ = fs::write(self.back.join(PROCESSES), "0");
    }
}

/// Where groups with a cpuset can be made: of the first version, or of the second.
fn root() -> Option<PathBuf> {
    let first = Path::new("/sys/fs/cgroup/cpuset");
    if first.join("cpuset.cpus").exists() {
        return Some(first.to_owned());
    }
    let second = Path::new("/sys/fs/cgroup");
    let given = fs::read_to_string(second.join("cgroup.subtree_control")).ok()?;
    given
        .split_whitespace()
        .any(|it| it == "cpuset")
        .then(|| second.to_owned())
}
