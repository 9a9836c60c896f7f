//! Actors, their peer and the model together: an operation is done for real and in the model.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::actor::{Actors, FIRST};
use crate::address::plain;
use crate::model::{Model, ModelProcess, ModelSocket};
use crate::peer::Peer;
use crate::script::{How, Op};
use crate::{server, truth, wait};

/// One server port that listens, one that refuses, and a family of actors.
pub struct Scene {
    pub peer: Peer,
    pub refusing: u16,
    pub actors: Actors,
    pub model: Model,
    next_socket: u32,
    next_process: u32,
}

impl Scene {
    pub fn new() -> Result<Self> {
        let peer = Peer::start()?;
        let refusing = server::free_port()?;
        let actors = Actors::start()?;
        let pid = actors.pid(FIRST).context("the first actor has a pid")?;
        let first = ModelProcess {
            pid,
            name: "actor".into(),
            ..ModelProcess::default()
        };
        let model = Model {
            processes: [(FIRST.to_owned(), first)].into(),
            ..Model::default()
        };
        Ok(Self {
            peer,
            refusing,
            actors,
            model,
            next_socket: 0,
            next_process: 1,
        })
    }

    /// Both ports, for the tracer.
    #[must_use]
    pub fn ports(&self) -> [u16; 2] {
        [self.peer.port(), self.refusing]
    }

    pub fn pid(&self, actor: &str) -> Result<u32> {
        self.actors
            .pid(actor)
            .with_context(|| format!("no actor {actor}"))
    }

    /// Opens a connection to the peer and returns the script's name of the socket.
    pub fn open(&mut self, actor: &str, how: How, to: SocketAddr) -> Result<u32> {
        let socket = self.next_socket;
        self.next_socket += 1;
        let before = unix_now();
        let answer = self.actors.order(actor, Op::Open { socket, how, to })?;
        let opened_between = (before, unix_now());
        self.model.set_fds(actor, socket, &answer.fds);
        let local = plain(answer.local.context("a local end")?);
        if matches!(how, How::FastOpen | How::SendTo) {
            self.peer.read_byte(local)?;
        }
        let process = self.model.processes.get_mut(actor).context("a process")?;
        process.opened += 1;
        let socket_now = ModelSocket {
            opener: actor.to_owned(),
            opener_pid: answer.pid,
            local,
            remote: plain(to),
            state: "ESTABLISHED",
            peer_open: true,
            opened_between,
        };
        self.model.sockets.insert(socket, socket_now);
        Ok(socket)
    }

    /// A connect that is refused, and its close.
    pub fn open_refused(&mut self, actor: &str) -> Result<()> {
        let socket = self.next_socket;
        self.next_socket += 1;
        let to = SocketAddr::from(([127, 0, 0, 1], self.refusing));
        let answer = self.actors.tell(
            actor,
            Op::Open {
                socket,
                how: How::Connect,
                to,
            },
        )?;
        ensure!(
            answer.errno == Some(libc::ECONNREFUSED),
            "not refused: {answer:?}"
        );
        self.actors.order(actor, Op::Close { socket })?;
        self.model
            .processes
            .get_mut(actor)
            .context("a process")?
            .opened += 1;
        Ok(())
    }

    pub fn close(&mut self, actor: &str, socket: u32) -> Result<()> {
        let answer = self.actors.order(actor, Op::Close { socket })?;
        self.model.set_fds(actor, socket, &answer.fds);
        self.bury()
    }

    pub fn abort(&mut self, actor: &str, socket: u32) -> Result<()> {
        self.actors.order(actor, Op::Abort { socket })?;
        self.model.set_fds(actor, socket, &[]);
        self.bury()
    }

    pub fn half_close(&mut self, actor: &str, socket: u32) -> Result<()> {
        let answer = self.actors.tell(actor, Op::HalfClose { socket })?;
        // A dead socket has nothing to shut down.
        ensure!(
            matches!(answer.errno, None | Some(libc::ENOTCONN)),
            "{answer:?}"
        );
        self.model.half_closes(socket);
        self.wait_state(socket)
    }

    pub fn dup(&mut self, actor: &str, socket: u32) -> Result<()> {
        let answer = self.actors.order(actor, Op::Dup { socket })?;
        self.model.set_fds(actor, socket, &answer.fds);
        Ok(())
    }

    pub fn pass(&mut self, actor: &str, socket: u32, to: &str) -> Result<()> {
        let answer = self.actors.order(
            actor,
            Op::Pass {
                socket,
                to: to.to_owned(),
            },
        )?;
        self.model.set_fds(to, socket, &answer.fds);
        Ok(())
    }

    pub fn fork(&mut self, actor: &str) -> Result<String> {
        let child = format!("p{}", self.next_process);
        self.next_process += 1;
        let answer = self.actors.order(
            actor,
            Op::Fork {
                child: child.clone(),
                pid: None,
            },
        )?;
        self.model.fork(actor, &child, answer.pid);
        Ok(child)
    }

    pub fn exec(&mut self, actor: &str, name: &str) -> Result<()> {
        let program: PathBuf = self.actors.renamed(name)?;
        self.actors.order(actor, Op::Exec { program })?;
        self.model
            .processes
            .get_mut(actor)
            .context("a process")?
            .name = name.to_owned();
        Ok(())
    }

    pub fn exit(&mut self, actor: &str) -> Result<()> {
        self.actors.order(actor, Op::Exit)?;
        self.model.processes.remove(actor);
        self.bury()
    }

    pub fn kill(&mut self, actor: &str) -> Result<()> {
        self.actors.kill(actor)?;
        self.model.processes.remove(actor);
        self.bury()
    }

    pub fn peer_close(&mut self, socket: u32) -> Result<()> {
        self.peer.close(self.local(socket)?)?;
        self.model.peer_closes(socket);
        self.wait_state(socket)
    }

    pub fn peer_reset(&mut self, socket: u32) -> Result<()> {
        self.peer.reset(self.local(socket)?)?;
        self.model.peer_resets(socket);
        self.wait_state(socket)
    }

    fn local(&self, socket: u32) -> Result<SocketAddr> {
        Ok(self.model.sockets.get(&socket).context("a socket")?.local)
    }

    /// The server end of a buried socket goes too, so that nothing lingers in FIN_WAIT2.
    fn bury(&mut self) -> Result<()> {
        for client in self.model.bury() {
            self.peer.close(client)?;
        }
        Ok(())
    }

    /// Waits until the kernel agrees with the model about one socket: what the next operation
    /// does may depend on it.
    fn wait_state(&mut self, socket: u32) -> Result<()> {
        let expected = self.model.sockets.get(&socket).context("a socket")?.state;
        let holder = self
            .model
            .processes
            .iter()
            .find(|(_, p)| p.fds.contains_key(&socket));
        let holder = holder.context("a held socket has a holder")?.0.clone();
        let actors = &mut self.actors;
        wait::until_equal("the kernel's state", &Some(expected), || {
            let state = actors.order(&holder, Op::Look { socket })?.state;
            Ok(state.and_then(truth::state_word))
        })
    }

    /// Waits until everything is at rest: every state as in the model, every buried socket gone,
    /// and /proc agrees about every holder.
    pub fn settle(&mut self) -> Result<()> {
        for socket in self.model.sockets.keys().copied().collect::<Vec<_>>() {
            self.wait_state(socket)?;
        }
        wait::until("the kernel agrees with the model", || {
            self.disagreement().ok()?.is_none().then_some(())
        })
        .with_context(|| format!("{:?}", self.disagreement()))
    }

    fn disagreement(&self) -> Result<Option<String>> {
        let mut listed: Vec<_> = truth::sockets(self.peer.port())?
            .into_iter()
            .filter(|l| l.ends.1.port() == self.peer.port() && l.state != "TIME_WAIT")
            .map(|l| (l.ends, l.state))
            .collect();
        // A dead socket is in no table of the kernel's.
        let alive = self.model.sockets.values().filter(|s| s.state != "CLOSE");
        let mut expected: Vec<_> = alive.map(|s| ((s.local, s.remote), s.state)).collect();
        listed.sort_unstable();
        expected.sort_unstable();
        if listed != expected {
            return Ok(Some(format!(
                "the kernel lists {listed:?}, the model {expected:?}"
            )));
        }
        for process in self.model.processes.values() {
            let held: usize = truth::socket_fds(process.pid)
                .values()
                .map(std::collections::BTreeSet::len)
                .sum();
            // One more: the control socket.
            let expected = 1 + process
                .fds
                .values()
                .map(std::collections::BTreeSet::len)
                .sum::<usize>();
            if held != expected {
                return Ok(Some(format!(
                    "{} holds {held} sockets, not {expected}",
                    process.pid
                )));
            }
        }
        Ok(None)
    }
}

fn unix_now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}
