//! The interpreters: which processes run one, how the kernel side walks it, and what its frames are.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use super::allowance::{Account, Allowance};
use super::looked::Looked;
use super::modules::{Mapping, executables_named};
use super::python;
use super::resolver::{is_started_at, start_ticks};
use super::{Frame, ProcessKey};
use super::{php, ruby};

/// Where the walk begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// A slot at this distance from the thread pointer.
    Thread(i64),
    /// A variable of the process.
    Address(u64),
}

/// Where a frame's caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// At the address that the frame has at this offset.
    Linked { previous: u16 },
    /// Right behind the frame, up to the end of the stack: the state has its beginning at
    /// `state_stack`, and then its size in words.
    Next { state_stack: u16, frame_bytes: u16 },
}

/// How the kernel side follows the frames of one process. Offsets in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLayout {
    pub root: Root,
    /// From the state to the struct of its thread, and from there to the native thread's, where the
    /// thread pointer is not in the state itself.
    pub state_owner: Option<u16>,
    pub owner_native: Option<u16>,
    pub state_thread: u16,
    pub state_frame: u16,
    pub cframe_frame: Option<u16>,
    pub frame_code: u16,
    pub caller: Caller,
    pub frame_instruction: u16,
    pub instruction_is_i32: bool,
    pub frame_owner: Option<u16>,
}

/// What the kernel side is to be told of a process.
#[derive(Clone, Copy, Debug)]
pub struct Announcement {
    pub pid: u32,
    /// As in /proc/PID/stat.
    pub start_ticks: u64,
    pub runtime: u32,
    pub layout: FrameLayout,
}

/// How a walk of interpreter frames ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FramesEnd {
    /// No interpreter was known for the process.
    #[default]
    Unasked,
    Whole,
    Bounded,
    Fault,
    NoState,
}

/// The interpreter frames of one connect, as the kernel side took them.
#[derive(Clone, Debug, Default)]
pub struct FrameSample {
    pub runtime: u32,
    pub end: FramesEnd,
    /// (code object, instruction), innermost first.
    pub frames: Vec<(u64, u64)>,
}

/// Interpreter frames with their names.
#[derive(Clone, Debug, Default)]
pub(super) struct NamedFrames {
    pub(super) end: FramesEnd,
    pub(super) frames: Vec<Frame>,
    /// Frames whose code object was gone when it was read.
    pub(super) unnamed: usize,
    /// Why the interpreter's frames cannot be had in this process.
    pub(super) refusal: Option<Arc<str>>,
}

const WAITING_MAX: usize = 4_096;
const REFUSED_MAX: usize = 4_096;
const RUNTIMES_MAX: usize = 16_384;
/// A process without a known interpreter is not looked at for every connect.
const LOOK_PAUSE: Duration = Duration::from_secs(2);
const LOOKED_MAX: usize = 4_096;
const FIRST_ROUND_MAX: Duration = Duration::from_secs(2);
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

/// What naming the frames of one process needs to know.
#[derive(Debug, PartialEq, Eq)]
enum Runtime {
    Python(python::Runtime),
    Php,
    Ruby(ruby::Runtime),
}

/// Finds whichever interpreter a process runs.
#[derive(Default)]
struct Discovery {
    python: python::Discovery,
    php: php::Discovery,
    ruby: ruby::Discovery,
}

/// Names what the frames of each runtime ran.
#[derive(Default)]
struct CodeReaders {
    python: python::CodeReader,
    ruby: ruby::CodeReader,
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

/// What is known of each runtime, by the number that comes back with its frames.
#[derive(Debug, Default)]
struct Runtimes {
    known: Mutex<BTreeMap<u32, Arc<Runtime>>>,
    /// By PID: when the process began (as in /proc/PID/stat), and why it is not walked.
    refused: Mutex<HashMap<u32, (u64, Arc<str>)>>,
}

impl Runtimes {
    fn get(&self, number: u32) -> Option<Arc<Runtime>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&number).map(Arc::clone)
    }

    fn refuse(&self, pid: u32, start_ticks: u64, cause: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        // Who still connects is looked at again.
        if refused.len() >= REFUSED_MAX {
            refused.clear();
        }
        refused.insert(pid, (start_ticks, cause.into()));
    }

    fn refusal(&self, process: ProcessKey) -> Option<Arc<str>> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let (start_ticks, cause) = refused.get(&process.pid)?;
        is_started_at(process, *start_ticks).then(|| Arc::clone(cause))
    }

    /// The number of an equal runtime, or a new one: the oldest makes room.
    fn add(&self, runtime: Runtime) -> u32 {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((number, _)) = known.iter().find(|(_, other)| ***other == runtime) {
            return *number;
        }
        while known.len() >= RUNTIMES_MAX {
            known.pop_first();
        }
        let number = known.last_key_value().map_or(0, |(last, _)| *last) + 1;
        known.insert(number, Arc::new(runtime));
        number
    }
}

/// Whom to look at.
enum Job {
    /// Called exec just now.
    Started(u32),
    /// Connects, and its interpreter is not known.
    Connects(u32),
}

/// Owned by whoever reads the ring: names frames at once, and has processes looked at elsewhere.
pub(super) struct Interpreters {
    jobs: SyncSender<Job>,
    runtimes: Arc<Runtimes>,
    code: CodeReaders,
    looked: HashMap<ProcessKey, Instant>,
}

impl Interpreters {
    /// Looks at every process that exists, and then at those asked for. Returns after the first
    /// round, so that what runs already is known when tracing is said to have begun.
    pub(super) fn start(
        announce: impl FnMut(&Announcement) + Send + 'static,
        allowance: Arc<Allowance>,
    ) -> io::Result<Self> {
        let (jobs, todo) = sync_channel(WAITING_MAX);
        let runtimes = Arc::new(Runtimes::default());
        let shared = Arc::clone(&runtimes);
        let (ready, is_ready) = sync_channel(1);
        thread::Builder::new()
            .name("connleak-interpreters".to_owned())
            .spawn(move || look_around(&todo, &shared, announce, &ready, allowance))?;
        // A host with very many processes does not hold up tracing.
        let _ = is_ready.recv_timeout(FIRST_ROUND_MAX);
        Ok(Self {
            jobs,
            runtimes,
            code: CodeReaders::default(),
            looked: HashMap::new(),
        })
    }

    /// The process called exec.
    pub(super) fn look(&self, process: ProcessKey) {
        // Full: its first connect asks again.
        let _: Result<(), TrySendError<Job>> = self.jobs.try_send(Job::Started(process.pid));
    }

    /// Reads the names now: later the code may be gone.
    pub(super) fn name(&mut self, process: ProcessKey, sample: &FrameSample) -> NamedFrames {
        if matches!(sample.end, FramesEnd::Unasked | FramesEnd::NoState) {
            self.look_again(process);
        }
        let mut named = NamedFrames {
            end: sample.end,
            ..NamedFrames::default()
        };
        if sample.frames.is_empty() {
            named.refusal = self.runtimes.refusal(process);
            return named;
        }
        match self.runtimes.get(sample.runtime) {
            Some(runtime) => {
                let (number, pid, frames) = (sample.runtime, process.pid, &sample.frames);
                let frames = match &*runtime {
                    Runtime::Python(python) => self.code.python.name(python, number, pid, frames),
                    Runtime::Php => php::name(pid, frames),
                    Runtime::Ruby(ruby) => self.code.ruby.name(ruby, number, pid, frames),
                };
                for frame in frames {
                    named.unnamed += usize::from(frame.function.is_none());
                    named.frames.push(frame);
                }
            }
            None => named.end = FramesEnd::Unasked,
        }
        named
    }

    fn look_again(&mut self, process: ProcessKey) {
        let now = Instant::now();
        if self.looked.len() >= LOOKED_MAX {
            self.looked.clear();
        }
        let looked = self.looked.entry(process);
        if let std::collections::hash_map::Entry::Occupied(at) = &looked
            && now.duration_since(*at.get()) < LOOK_PAUSE
        {
            return;
        }
        looked.insert_entry(now);
        let _ = self.jobs.try_send(Job::Connects(process.pid));
    }
}

fn look_around(
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
