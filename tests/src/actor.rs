//! The harness's side of the actors: starts the first, sends operations, keeps their answers.

use std::collections::BTreeMap;
use std::process::{Child, Command as Program, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::datagram::Datagram;
use crate::script::{Answer, Command, Op};
use crate::{child, place, truth, wait};

/// A family of actors by name; all are killed when this is dropped.
pub struct Actors {
    folder: TempDir,
    harness: Datagram,
    root: Child,
    pids: BTreeMap<String, u32>,
    next_id: u64,
    /// Every operation with its answer, in order: the truth of the script.
    pub log: Vec<(String, Op, Answer)>,
}

/// The name of the first actor.
pub const FIRST: &str = "p0";

impl Actors {
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// `extra` only lengthens the first actor's command line.
    pub fn start_with(extra: &[&str]) -> Result<Self> {
        let folder = TempDir::with_prefix("connleak-actor-")?;
        let harness = Datagram::bind(&folder.path().join("harness"), wait::patience())?;
        let root = child::bound(&mut Program::new(place::client("actor")?))
            .arg("start")
            .arg(folder.path())
            .arg(FIRST)
            .args(extra)
            .stdin(Stdio::null())
            .spawn()
            .context("failed to start the actor")?;
        let pids = BTreeMap::from([(FIRST.to_owned(), root.id())]);
        let actors = Self {
            folder,
            harness,
            root,
            pids,
            next_id: 1,
            log: Vec::new(),
        };
        actors.answer(0)?;
        Ok(actors)
    }

    /// Has `actor` perform `op` and returns the answer, which may carry an errno.
    pub fn tell(&mut self, actor: &str, op: Op) -> Result<Answer> {
        let id = self.next_id;
        self.next_id += 1;
        let bytes = serde_json::to_vec(&Command { id, op: op.clone() })?;
        self.harness
            .send(&self.folder.path().join(actor), &bytes, None)
            .with_context(|| format!("failed to tell {actor} {op:?}"))?;
        let answer = self
            .answer(id)
            .with_context(|| format!("{actor}: {op:?}"))?;
        match &op {
            Op::Fork { child, .. } if answer.errno.is_none() => {
                self.pids.insert(child.clone(), answer.pid);
            }
            Op::Exit => {
                let pid = answer.pid;
                self.pids.remove(actor);
                self.wait_gone(pid)?;
            }
            _ => {}
        }
        self.log.push((actor.to_owned(), op, answer.clone()));
        Ok(answer)
    }

    /// Like [`Self::tell`], for operations that must succeed.
    pub fn order(&mut self, actor: &str, op: Op) -> Result<Answer> {
        let answer = self.tell(actor, op.clone())?;
        if let Some(errno) = answer.errno {
            let error = std::io::Error::from_raw_os_error(errno);
            return Err(error).with_context(|| format!("failed to have {actor} perform {op:?}"));
        }
        Ok(answer)
    }

    /// Forks `actor` into a process that gets `pid`, which was another's, as soon as it is free.
    /// `None` where the kernel lets nobody choose.
    pub fn fork_as(&mut self, actor: &str, child: &str, pid: u32) -> Result<Option<Answer>> {
        wait::until("the pid is free", || {
            let op = Op::Fork {
                child: child.to_owned(),
                pid: Some(pid),
            };
            match self.tell(actor, op) {
                Ok(answer) if answer.errno == Some(libc::EEXIST) => None,
                Ok(answer) if answer.errno.is_some() => Some(Ok(None)),
                done => Some(done.map(Some)),
            }
        })?
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self, actor: &str) -> Result<()> {
        let pid = self
            .pids
            .remove(actor)
            .with_context(|| format!("no actor {actor}"))?;
        // SAFETY: kill has no memory effects; the pid is a child of this family.
        unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        self.wait_gone(pid)
    }

    #[must_use]
    pub fn pid(&self, actor: &str) -> Option<u32> {
        self.pids.get(actor).copied()
    }

    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// A path by which an actor can exec itself under another name.
    pub fn renamed(&self, name: &str) -> Result<std::path::PathBuf> {
        let path = self.folder.path().join(name);
        if !path.exists() {
            std::os::unix::fs::symlink(place::client("actor")?, &path)?;
        }
        Ok(path)
    }

    fn wait_gone(&mut self, pid: u32) -> Result<()> {
        let root = &mut self.root;
        wait::until("the actor is gone", || {
            if root.id() == pid {
                let _ = root.try_wait();
            }
            (!truth::alive(pid)).then_some(())
        })
    }

    fn answer(&self, id: u64) -> Result<Answer> {
        let message = self.harness.receive().context("no answer")?;
        let mut answer: Answer = serde_json::from_slice(&message.bytes)?;
        answer.pid = message.sender.context("an answer without a sender")?;
        ensure!(
            answer.id == id,
            "answer to {} where {id} was asked",
            answer.id
        );
        Ok(answer)
    }
}

impl Drop for Actors {
    fn drop(&mut self) {
        for pid in self.pids.values() {
            // SAFETY: kill has no memory effects; living members of this family only.
            unsafe { libc::kill(*pid as i32, libc::SIGKILL) };
        }
        let _ = self.root.kill();
        let _ = self.root.wait();
    }
}
