//! The interpreters: which processes run one, how the kernel side walks it, and what its frames are.
//!
//! `lookout` finds them in a thread of its own, and `runtimes` keeps what it found of them.

mod lookout;
mod runtimes;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use self::lookout::{Job, look_around};
use self::runtimes::{Runtime, Runtimes};
use super::allowance::Allowance;
use super::{Frame, ProcessKey};
use super::{php, python, ruby};

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

/// Whom to look at, asked for or due.
const WAITING_MAX: usize = 4_096;
/// A process without a known interpreter is not looked at for every connect.
const LOOK_PAUSE: Duration = Duration::from_secs(2);
const LOOKED_MAX: usize = 4_096;
const FIRST_ROUND_MAX: Duration = Duration::from_secs(2);
/// Names what the frames of each runtime ran.
#[derive(Default)]
struct CodeReaders {
    python: python::CodeReader,
    ruby: ruby::CodeReader,
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
