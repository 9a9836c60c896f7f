//! The lookout: a thread that looks at processes, and says which of them run an interpreter.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::super::allowance::{Account, Allowance};
use super::super::looked::Looked;
use super::super::modules::{Mapping, executables_named};
use super::super::resolver::start_ticks;
use super::super::{php, python, ruby};
use super::runtimes::{Runtime, Runtimes};
use super::{Announcement, FrameLayout, WAITING_MAX};

/// After exec: libraries are mapped within milliseconds, the runtime is up some later. Most
/// programs that a machine starts and forgets are gone by the first.
const TRIES: [Duration; 6] = [
    Duration::from_millis(15),
    Duration::from_millis(40),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(600),
    Duration::from_millis(2_000),
];
/// A process that runs something else may still map an interpreter: it is looked at once more,
/// after the pause of this try.
const LATE: usize = 3;

/// Whom to look at.
pub(super) enum Job {
    /// Called exec just now.
    Started(u32),
    /// Connects, and its interpreter is not known.
    Connects(u32),
}

/// Finds whichever interpreter a process runs.
#[derive(Default)]
struct Discovery {
    python: python::Discovery,
    php: php::Discovery,
    ruby: ruby::Discovery,
}

impl Discovery {
    fn look(
        &mut self,
        pid: u32,
        process_dir: &Path,
        mappings: &[Mapping],
    ) -> Looked<(Runtime, FrameLayout)> {
        let python = self.python.look(pid, process_dir, mappings);
        if !matches!(python, Looked::Nothing) {
            return python.map(|(runtime, layout)| (Runtime::Python(runtime), layout));
        }
        let php = self.php.look(pid, process_dir, mappings);
        if !matches!(php, Looked::Nothing) {
            return php.map(|layout| (Runtime::Php, layout));
        }
        let ruby = self.ruby.look(pid, process_dir, mappings);
        ruby.map(|(runtime, layout)| (Runtime::Ruby(runtime), layout))
    }
}

/// What a process maps of files that may be an interpreter; `None` if it ended.
fn interpreters_mapped(process_dir: &Path) -> Option<Vec<Mapping>> {
    executables_named(process_dir, |name| {
        python::Discovery::may_be(name)
            || php::Discovery::may_be(name)
            || ruby::Discovery::may_be(name)
    })
}

pub(super) fn look_around(
    todo: &Receiver<Job>,
    runtimes: &Runtimes,
    mut announce: impl FnMut(&Announcement),
    ready: &SyncSender<()>,
    allowance: Arc<Allowance>,
) {
    let mut discovery = Discovery::default();
    // When to look at which process, and which try is the next then.
    let mut due: BTreeMap<(Instant, u32), usize> = BTreeMap::new();
    for pid in every_pid() {
        let looked = look(&mut discovery, runtimes, pid, &mut announce);
        if matches!(looked, Looked::NotYet) {
            due.insert((Instant::now() + TRIES[0], pid), 1);
        }
    }
    let _ = ready.try_send(());
    let mut account = Account::of_this_thread(allowance);
    let began = Instant::now();
    loop {
        let now = Instant::now();
        let next = due.first_key_value().map(|((at, _), _)| *at);
        let job = match next {
            Some(at) if at <= now => Err(RecvTimeoutError::Timeout),
            Some(at) => todo.recv_timeout(at - now),
            None => todo.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match job {
            Ok(_) if due.len() >= WAITING_MAX => {}
            Ok(Job::Started(pid)) => {
                due.insert((Instant::now() + TRIES[0], pid), 1);
            }
            Ok(Job::Connects(pid)) => {
                // Before all that is due: it has connections.
                due.insert((began, pid), 0);
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let Some(((_, pid), tries)) = due.pop_first() else {
                    continue;
                };
                account.begin();
                let looked = look(&mut discovery, runtimes, pid, &mut announce);
                account.settle();
                let next = match looked {
                    Looked::NotYet => tries,
                    Looked::Nothing if tries <= LATE => LATE,
                    Looked::Nothing | Looked::Found(()) | Looked::Refused(_) | Looked::Ended => {
                        continue;
                    }
                };
                if let Some(pause) = TRIES.get(next) {
                    due.insert((Instant::now() + *pause, pid), next + 1);
                }
            }
        }
    }
}

fn look(
    discovery: &mut Discovery,
    runtimes: &Runtimes,
    pid: u32,
    announce: &mut impl FnMut(&Announcement),
) -> Looked<()> {
    let process_dir = PathBuf::from(format!("/proc/{pid}"));
    match interpreters_mapped(&process_dir) {
        None => return Looked::Ended,
        // Nearly all that call exec: one file tells.
        Some(mappings) if mappings.is_empty() => return Looked::Nothing,
        Some(_) => {}
    }
    let ticks = || start_ticks(&fs::read(process_dir.join("stat")).ok()?);
    let (Some(start_ticks), Some(mappings)) = (ticks(), interpreters_mapped(&process_dir)) else {
        return Looked::Ended;
    };
    let looked = discovery.look(pid, &process_dir, &mappings);
    // Still the same process: what was read was its own.
    if ticks() != Some(start_ticks) {
        return Looked::Ended;
    }
    if let Looked::Refused(cause) = &looked {
        runtimes.refuse(pid, start_ticks, cause);
    }
    looked.map(|(runtime, layout)| {
        announce(&Announcement {
            pid,
            start_ticks,
            runtime: runtimes.add(runtime),
            layout,
        });
    })
}

fn every_pid() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
