//! The background: one thread unwinds and names stacks, so that reading the ring never waits.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::interpreters::{Announcement, Interpreters, NamedFrames};
use super::merge::{merge, without_native};
use super::node;
use super::{ProcessKey, Resolver, ResolverConfig, Stack, StackSample};
use crate::memory;

/// Samples that wait; with copies of 32 KiB they hold 16 MiB.
const WAITING_MAX: usize = 512;
/// Without a stack to resolve for so long, the tables of the programs are given back: a daemon at
/// rest holds none of them, and reads them again with the next stack.
const REST: Duration = Duration::from_secs(20);
/// Different stacks that are kept although no socket has them any more.
const IDLE_STACKS_MAX: usize = 1024;

enum Job<Tag> {
    Resolve {
        tag: Tag,
        process: ProcessKey,
        sample: StackSample,
        interpreter: NamedFrames,
    },
    Forget(ProcessKey),
    AllowJavaPerfmap,
}

/// A handle on the thread; it ends when the handle is dropped. `Tag` says whose a stack is.
pub struct Background<Tag> {
    jobs: SyncSender<Job<Tag>>,
    resolved: UnboundedReceiver<(Tag, Arc<Stack>)>,
    /// For stacks that need no unwinding.
    done: UnboundedSender<(Tag, Arc<Stack>)>,
    interpreters: Interpreters,
    waiting: usize,
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
        thread::Builder::new()
            .name("connleak-stacks".to_owned())
            .spawn(move || work(&config, &todo, &done))?;
        Ok(Self {
            jobs,
            resolved,
            done: named,
            interpreters: Interpreters::start(announce)?,
            waiting: 0,
        })
    }

    /// The process called exec: it may run an interpreter now.
    pub fn look(&self, process: ProcessKey) {
        self.interpreters.look(process);
    }

    /// Asks for a stack. False if too many wait already: the sample is dropped, and only the frames
    /// of an interpreter, which have their names, are kept.
    pub fn ask(&mut self, tag: Tag, process: ProcessKey, sample: StackSample) -> bool {
        let interpreter = self.interpreters.name(process, &sample.interpreter);
        let job = Job::Resolve {
            tag,
            process,
            sample,
            interpreter,
        };
        let sent = match self.jobs.try_send(job) {
            Ok(()) => true,
            Err(TrySendError::Full(Job::Resolve {
                tag, interpreter, ..
            })) if !interpreter.frames.is_empty() => {
                let stack = Arc::new(without_native(interpreter));
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

    /// JVMs may be asked what they have compiled.
    pub fn allow_java_perfmap(&self) {
        // At the start, when nothing waits.
        let _ = self.jobs.try_send(Job::AllowJavaPerfmap);
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

fn work<Tag>(
    config: &ResolverConfig,
    todo: &Receiver<Job<Tag>>,
    done: &UnboundedSender<(Tag, Arc<Stack>)>,
) {
    let mut config = config.clone();
    let mut resolver = Resolver::new(config.clone());
    let mut known: HashSet<Arc<Stack>> = HashSet::new();
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
                resolver = Resolver::new(config.clone());
                known.retain(|stack| Arc::strong_count(stack) > 1);
                memory::give_back();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        match job {
            Job::Resolve {
                tag,
                process,
                sample,
                interpreter,
            } => {
                at_rest = false;
                let native = node::with_caller(resolver.resolve(process, &sample), &sample);
                let stack = merge(native, interpreter);
                let stack = Arc::new(stack);
                // One allocation for all sockets of a leak, however many there are.
                let stack = match known.get(&stack) {
                    Some(known) => Arc::clone(known),
                    None => {
                        known.insert(Arc::clone(&stack));
                        stack
                    }
                };
                if known.len() > IDLE_STACKS_MAX {
                    known.retain(|stack| Arc::strong_count(stack) > 1);
                }
                if done.send((tag, stack)).is_err() {
                    return;
                }
            }
            Job::Forget(process) => resolver.forget(process),
            Job::AllowJavaPerfmap => {
                config.java_perfmap = true;
                resolver.allow_java_perfmap();
            }
        }
    }
}
