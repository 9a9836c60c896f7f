//! A unit without systemd: a cgroup named like one, and processes in it.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use crate::client::Client;
use crate::{place, wait};

/// systemd's own hierarchy of cgroup v1, then v2 mounted beside it or alone.
const HIERARCHIES: [&str; 3] = [
    "/sys/fs/cgroup/systemd",
    "/sys/fs/cgroup/unified",
    "/sys/fs/cgroup",
];

pub struct Unit {
    name: String,
    parent: PathBuf,
    directory: PathBuf,
}

impl Unit {
    /// Makes a unit `<stem>-<number>.service` of which there is no other.
    pub fn new(stem: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let own = format!("connleak-test-{}-{number}", std::process::id());
        let name = format!("{stem}-{}-{number}.service", std::process::id());
        for hierarchy in HIERARCHIES {
            let hierarchy = Path::new(hierarchy);
            if !hierarchy.join("cgroup.procs").exists() {
                continue;
            }
            let parent = hierarchy.join(&own);
            let directory = parent.join(&name);
            std::fs::create_dir_all(&directory)
                .with_context(|| format!("failed to make cgroup {}", directory.display()))?;
            return Ok(Self {
                name,
                parent,
                directory,
            });
        }
        bail!("failed to find a cgroup hierarchy under /sys/fs/cgroup")
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that lists its processes, and takes new ones.
    #[must_use]
    pub fn processes(&self) -> PathBuf {
        self.directory.join("cgroup.procs")
    }

    /// A shell command that ends all its processes.
    #[must_use]
    pub fn killer(&self) -> String {
        format!("xargs -r kill -9 < {}", self.processes().display())
    }

    /// Lets the command run in it.
    pub fn adopt<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let processes = self.processes();
        // SAFETY: the child is single-threaded and allocates only what the path needs; glibc's
        // allocator is usable after fork.
        unsafe {
            command.pre_exec(move || {
                let pid = std::process::id().to_string();
                std::fs::write(&processes, pid)
            })
        }
    }

    /// A client in it that holds `count` connections.
    pub fn client(&self, port: u16, count: u32) -> Result<Client> {
        let mut command = Command::new(place::client("redis_rs_pool")?);
        let (port, count) = (port.to_string(), count.to_string());
        command.args(["127.0.0.1", &port, &count, "0"]);
        Client::spawn(self.adopt(&mut command))
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // A cgroup can be removed when its last process is reaped.
        let _ = wait::until("the unit's processes to be gone", || {
            std::fs::remove_dir(&self.directory).ok()
        });
        let _ = std::fs::remove_dir(&self.parent);
    }
}
