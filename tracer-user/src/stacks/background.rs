//! The background: one thread unwinds and names stacks, so that reading the ring never waits.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::allowance::{Account, Allowance, Hurry};
use super::interpreters::{Announcement, Interpreters, NamedFrames};
use super::merge::{merge, without_native};
use super::node;
use super::shared::SharedStacks;
use super::{Frame, ProcessKey, Resolver, ResolverConfig, Stack, StackSample};
use crate::memory;

/// Samples that wait; with copies of 32 KiB they hold 16 MiB.
const WAITING_MAX: usize = 512;
/// Their copies, and the names of their interpreter frames, which the target makes long.
const WAITING_MAX_BYTES: usize = 64 << 20;
/// Without a stack to resolve for so long, the tables of the programs are given back: a daemon at
/// rest holds none of them, and reads them again with the next stack.
const REST: Duration = Duration::from_secs(20);

enum Job<Tag> {
    Resolve {
        tag: Tag,
        process: ProcessKey,
        sample: StackSample,
        interpreter: NamedFrames,
        bytes: usize,
    },
    Forget(ProcessKey),
}

/// A handle on the thread; it ends when the handle is dropped. `Tag` says whose a stack is.
pub struct Background<Tag> {
    jobs: SyncSender<Job<Tag>>,
    resolved: UnboundedReceiver<(Tag, Arc<Stack>)>,
    /// For stacks that need no unwinding.
    done: UnboundedSender<(Tag, Arc<Stack>)>,
    interpreters: Interpreters,
    shared: Arc<Mutex<SharedStacks>>,
    allowance: Arc<Allowance>,
    java_perfmap: Arc<AtomicBool>,
    waiting: usize,
    waiting_bytes: Arc<AtomicUsize>,
}

impl<Tag: Send + 'static> Background<Tag> {
    /// `announce` tells the kernel side of the interpreters that are found, from another thread.
    ///
    /// # Errors
    ///
    /// The system refused a thread.
    pub fn start(
        config: ResolverConfig,
        announce: impl FnMut(&Announcement) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, todo) = sync_channel(WAITING_MAX);
        let (done, resolved) = unbounded_channel();
        let named = done.clone();
        let shared = Arc::new(Mutex::new(SharedStacks::default()));
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let allowance = Arc::new(Allowance::default());
        let java_perfmap = Arc::new(AtomicBool::new(config.java_perfmap));
        let worker = Worker {
            config,
            allowance: Arc::clone(&allowance),
            java_perfmap: Arc::clone(&java_perfmap),
            shared: Arc::clone(&shared),
            waiting_bytes: Arc::clone(&waiting_bytes),
        };
        thread::Builder::new()
            .name("connleak-stacks".to_owned())
            .spawn(move || worker.work(&todo, &done))?;
        Ok(Self {
            jobs,
            resolved,
            done: named,
            interpreters: Interpreters::start(announce, Arc::clone(&allowance))?,
            shared,
            allowance,
            java_perfmap,
            waiting: 0,
            waiting_bytes,
        })
    }

    /// Each of the threads may take so much of one CPU; 0 is as much as it likes, and what it starts
    /// with.
    pub fn allow_cpu(&self, percent: u32) {
        self.allowance.set(percent);
    }

    /// Until the guard is dropped they take what they need.
    pub fn hurry(&self) -> Hurry {
        self.allowance.hurry()
    }

    /// The process called exec: it may run an interpreter now.
    pub fn look(&self, process: ProcessKey) {
        self.interpreters.look(process);
    }

    /// Asks for a stack. False if too many wait already: the sample is dropped, and only the frames
    /// of an interpreter, which have their names, are kept.
    pub fn ask(&mut self, tag: Tag, process: ProcessKey, sample: StackSample) -> bool {
        let interpreter = self.interpreters.name(process, &sample.interpreter);
        let names: usize = interpreter.frames.iter().map(Frame::held_bytes).sum();
        let bytes = sample.copy.len() + names;
        let job = Job::Resolve {
            tag,
            process,
            sample,
            interpreter,
            bytes,
        };
        // Only this thread adds to them.
        let has_room = self.waiting_bytes.load(Relaxed) + bytes <= WAITING_MAX_BYTES;
        let tried = match has_room {
            true => {
                self.waiting_bytes.fetch_add(bytes, Relaxed);
                self.jobs
                    .try_send(job)
                    .inspect_err(|_| _ = self.waiting_bytes.fetch_sub(bytes, Relaxed))
            }
            false => Err(TrySendError::Full(job)),
        };
        let sent = match tried {
            Ok(()) => true,
            Err(TrySendError::Full(Job::Resolve {
                tag, interpreter, ..
            })) if !interpreter.frames.is_empty() => {
                let stack = share(&self.shared, without_native(interpreter));
                self.done.send((tag, stack)).is_ok()
            }
            Err(_) => false,
        };
        self.waiting += usize::from(sent);
        sent
    }

    /// The process called exec or ended: its modules are not what they were.
    pub fn forget(&self, process: ProcessKey) {
        // When the queue is full, the resolver's own bound forgets the process later.
        let _ = self.jobs.try_send(Job::Forget(process));
    }

    /// JVMs may be asked what they have compiled, or not.
    pub fn allow_java_perfmap(&self, may: bool) {
        self.java_perfmap.store(may, Relaxed);
    }

    /// Stacks that were asked for and have not come back.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// The next stack. Pends while none is asked for.
    pub async fn next(&mut self) -> Option<(Tag, Arc<Stack>)> {
        let next = self.resolved.recv().await;
        self.waiting = self.waiting.saturating_sub(1);
        next
    }

    /// A stack that is there already.
    pub fn try_next(&mut self) -> Option<(Tag, Arc<Stack>)> {
        let next = self.resolved.try_recv().ok()?;
        self.waiting = self.waiting.saturating_sub(1);
        Some(next)
    }
}

impl<Tag> Drop for Background<Tag> {
    fn drop(&mut self) {
        // A thread that pauses would hold its tables until it sees that nobody asks any more.
        self.allowance.end();
    }
}

fn share(shared: &Mutex<SharedStacks>, stack: Stack) -> Arc<Stack> {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    shared.share(stack)
}

/// What the thread works with.
struct Worker {
    config: ResolverConfig,
    allowance: Arc<Allowance>,
    java_perfmap: Arc<AtomicBool>,
    shared: Arc<Mutex<SharedStacks>>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Worker {
    fn work<Tag>(self, todo: &Receiver<Job<Tag>>, done: &UnboundedSender<(Tag, Arc<Stack>)>) {
        let mut resolver = Resolver::new(self.config.clone());
        let mut account = Account::of_this_thread(Arc::clone(&self.allowance));
        let mut at_rest = true;
        loop {
            let job = match at_rest {
                true => todo.recv().map_err(RecvTimeoutError::from),
                false => todo.recv_timeout(REST),
            };
            let job = match job {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    at_rest = true;
                    resolver = Resolver::new(self.config.clone());
                    self.rest();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            account.begin();
            match job {
                Job::Resolve {
                    tag,
                    process,
                    sample,
                    interpreter,
                    bytes,
                } => {
                    at_rest = false;
                    resolver.allow_java_perfmap(self.java_perfmap.load(Relaxed));
                    let native = node::with_caller(resolver.resolve(process, &sample), &sample);
                    drop(sample);
                    let stack = merge(native, interpreter);
                    self.waiting_bytes.fetch_sub(bytes, Relaxed);
                    if done.send((tag, share(&self.shared, stack))).is_err() {
                        return;
                    }
                }
                Job::Forget(process) => resolver.forget(process),
            }
            account.settle();
        }
    }

    fn rest(&self) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.sweep();
        memory::give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FrameSample, Registers};
    use super::*;

    #[test]
    fn samples_that_wait_are_bounded_in_bytes_and_forgotten_when_done() {
        let config = ResolverConfig::default();
        let mut stacks = Background::start(config, |_| {}).expect("a thread");
        let sample = StackSample {
            registers: Registers::default(),
            copy: vec![0; WAITING_MAX_BYTES / 3].into(),
            bounded: true,
            interpreter: FrameSample::default(),
        };
        let process = ProcessKey {
            pid: std::process::id(),
            start_time_ns: 0,
        };
        let mut sent = 0;
        for tag in 0..100 {
            sent += usize::from(stacks.ask(tag, process, sample.clone()));
            assert!(stacks.waiting_bytes.load(Relaxed) <= WAITING_MAX_BYTES);
        }
        assert_eq!(stacks.waiting(), sent);
        while stacks.waiting() > 0 {
            stacks.try_next();
            thread::yield_now();
        }
        assert_eq!(stacks.waiting_bytes.load(Relaxed), 0);
        let all = StackSample {
            copy: vec![0; WAITING_MAX_BYTES + 1].into(),
            ..sample
        };
        assert!(!stacks.ask(0, process, all));
    }
}
