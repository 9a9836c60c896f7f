//! What /proc says of a process, kept for as long as one of its sockets is.

use std::{
    collections::HashMap,
    fmt, fs,
    io::Read,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    cgroup::{Placement, placement},
    identity::ProcessKey,
    pod::{Pod, Pods},
};
use crate::procfs;

/// A command line is as long as its process likes; this much of it is kept.
const CMDLINE_BYTES_MAX: u64 = 4096;
/// And so are these, which a process cannot make long.
const SMALL_FILE_BYTES_MAX: u64 = 64 * 1024;

/// A process as it was when it was last looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub name: String,
    pub cmdline: Vec<String>,
    pub unit: Option<String>,
    pub container: Option<String>,
    pub pod: Option<Pod>,
    pub uid: Option<u32>,
    /// Inode of /proc/PID/ns/net.
    pub netns: Option<u32>,
    /// PID in the innermost PID namespace, where that is not connleak's own.
    pub inner_pid: Option<u32>,
    /// It ended, or its PID belongs to another process by now.
    pub ended: bool,
}

/// The processes that were looked up.
#[derive(Debug)]
pub struct Processes {
    /// `None` where nothing but what is recorded may be known.
    proc_root: Option<PathBuf>,
    known: HashMap<ProcessKey, Process>,
    /// Processes looked up since it was last asked; kept only for a recording.
    looked_up: Option<Vec<ProcessKey>>,
}

impl Processes {
    pub fn new(proc_root: impl Into<PathBuf>) -> Self {
        Self {
            proc_root: Some(proc_root.into()),
            known: HashMap::new(),
            looked_up: None,
        }
    }

    /// Processes of another time or host: looks nothing up.
    pub fn recorded() -> Self {
        Self {
            proc_root: None,
            known: HashMap::new(),
            looked_up: None,
        }
    }

    /// From now on remembers which were looked up, for [`Processes::take_looked_up`].
    pub fn remember_looked_up(&mut self) {
        self.looked_up = Some(Vec::new());
    }

    pub fn take_looked_up(&mut self) -> Vec<ProcessKey> {
        self.looked_up
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Takes over what a recording knows of a process.
    pub fn set(&mut self, key: ProcessKey, process: Process) {
        self.known.insert(key, process);
    }

    fn look_up(&mut self, key: ProcessKey) -> Option<Process> {
        if let Some(looked_up) = &mut self.looked_up {
            looked_up.push(key);
        }
        read(self.proc_root.as_deref()?, key)
    }

    /// Looks a process up if it is not known yet; `comm` is what the kernel side knows of it, for
    /// a process that ended before anyone could look.
    pub fn meet(&mut self, key: ProcessKey, comm: impl fmt::Display, uid: Option<u32>) {
        if self.known.contains_key(&key) {
            return;
        }
        let process = self.look_up(key).unwrap_or_else(|| Process {
            name: comm.to_string(),
            uid,
            ended: true,
            ..Process::default()
        });
        self.known.insert(key, process);
    }

    /// Looks a process up again: it called exec.
    pub fn renew(&mut self, key: ProcessKey, comm: impl fmt::Display) {
        if !self.known.contains_key(&key) {
            return;
        }
        let found = self.look_up(key);
        let Some(known) = self.known.get_mut(&key) else {
            return;
        };
        match found {
            Some(process) => *known = process,
            None => {
                known.name = comm.to_string();
                known.ended = true;
            }
        }
    }

    pub fn end(&mut self, key: ProcessKey) {
        if let Some(process) = self.known.get_mut(&key) {
            process.ended = true;
        }
    }

    pub fn get(&self, key: ProcessKey) -> Option<&Process> {
        self.known.get(&key)
    }

    pub fn ended(&self) -> impl Iterator<Item = ProcessKey> {
        let ended = self.known.iter().filter(|(_, process)| process.ended);
        ended.map(|(key, _)| *key)
    }

    /// Drops what nobody asks for any more.
    pub fn retain(&mut self, keep: impl Fn(ProcessKey) -> bool) {
        self.known.retain(|&key, _| keep(key));
    }
}

fn read(proc_root: &Path, key: ProcessKey) -> Option<Process> {
    let directory = proc_root.join(key.pid.to_string());
    let (name, start_ticks) = stat(&small(&directory.join("stat"))?)?;
    if !key.started_at_tick(start_ticks) {
        return None;
    }
    let Placement {
        unit,
        container,
        pod_uid,
    } = small(&directory.join("cgroup"))
        .map(|text| placement(&text))
        .unwrap_or_default();
    let status = small(&directory.join("status")).unwrap_or_default();
    let pids: Vec<u32> = numbers(&status, "NSpid");
    Some(Process {
        name,
        cmdline: cmdline(&bounded(&directory.join("cmdline"), CMDLINE_BYTES_MAX)?),
        unit,
        pod: pod_uid.map(|uid| Pods::default().pod(uid, container.as_deref())),
        container,
        uid: numbers(&status, "Uid").first().copied(),
        netns: netns(&directory),
        inner_pid: (pids.len() > 1).then(|| pids[pids.len() - 1]),
        ended: false,
    })
}

fn bounded(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).ok()?;
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn small(path: &Path) -> Option<String> {
    let bytes = bounded(path, SMALL_FILE_BYTES_MAX)?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// (comm, start time in clock ticks) of /proc/PID/stat. The comm may hold spaces and parentheses.
pub(super) fn stat(text: &str) -> Option<(String, u64)> {
    let open = text.find('(')?;
    let close = text.rfind(')')?;
    let name = text.get(open + 1..close)?.to_owned();
    // Field 22, counted from the state, which is field 3.
    let ticks = text.get(close + 1..)?.split_whitespace().nth(19)?;
    Some((name, ticks.parse().ok()?))
}

pub(super) fn cmdline(bytes: &[u8]) -> Vec<String> {
    let trimmed = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if trimmed.is_empty() {
        return Vec::new();
    }
    trimmed
        .split(|&byte| byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

pub(super) fn numbers(status: &str, name: &str) -> Vec<u32> {
    procfs::field(status, name)
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// `net:[4026531840]` is the inode's number in brackets.
fn netns(directory: &Path) -> Option<u32> {
    netns_of_link(&directory.join("ns/net"))
}

/// The inode of the network namespace that a link in /proc names.
pub fn netns_of_link(link: &Path) -> Option<u32> {
    let link = fs::read_link(link).ok()?;
    let text = link.to_str()?;
    text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comm_with_parentheses_and_spaces_is_read() {
        let tail = "S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        let (name, ticks) = stat(&format!("42 (a) b (c) {tail}")).expect("it is a stat line");
        assert_eq!((name.as_str(), ticks), ("a) b (c", 4711));
    }

    #[test]
    fn a_reused_pid_is_not_the_process() {
        let own = fs::read_to_string("/proc/self/stat").expect("/proc is mounted");
        let (_, ticks) = stat(&own).expect("it is a stat line");
        let key = |start_time_ns| ProcessKey {
            pid: std::process::id(),
            start_time_ns,
        };
        let proc_root = Path::new("/proc");
        assert!(read(proc_root, key(ticks * 10_000_000)).is_some());
        assert!(read(proc_root, key((ticks + 1) * 10_000_000)).is_none());
    }

    #[test]
    fn empty_arguments_are_kept() {
        assert_eq!(cmdline(b"a\0\0b\0"), ["a", "", "b"]);
        assert!(cmdline(b"").is_empty());
    }
}
