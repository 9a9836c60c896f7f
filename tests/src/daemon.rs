//! A running `connleak daemon` with a configuration, a state and an evidence folder of its own.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{child, gate, place, wait};

/// What stays when the daemon ends: configuration, state, evidence, socket.
pub struct Home {
    dir: TempDir,
}

/// A line of the daemon and when it was read.
#[derive(Clone, Debug)]
pub struct Line {
    pub at: Instant,
    pub text: String,
}

pub struct Daemon {
    child: Child,
    lines: Arc<Mutex<Vec<Line>>>,
    socket: PathBuf,
}

impl Home {
    pub fn new() -> Result<Self> {
        Ok(Self {
            dir: TempDir::with_prefix("connleak-daemon-")?,
        })
    }

    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path("connleak.toml")
    }

    /// Watches `port` without holding levels, and adds `more` to it. Nothing happens by itself
    /// for an hour: what a test sees, an event has led to.
    pub fn configure(&self, port: u16, policy: &str, more: &str) -> Result<()> {
        self.write(port, policy, "", more)
    }

    /// As [`Home::configure`], with more of the section that says how to talk to Redis.
    pub fn configure_redis(&self, port: u16, policy: &str, redis: &str) -> Result<()> {
        self.write(port, policy, redis, "")
    }

    /// Replaces a part of the configuration that must be there.
    pub fn change(&self, from: &str, to: &str) -> Result<()> {
        let text = std::fs::read_to_string(self.config())?;
        ensure!(text.contains(from), "no {from:?} in {text}");
        Ok(std::fs::write(self.config(), text.replace(from, to))?)
    }

    fn write(&self, port: u16, policy: &str, redis: &str, more: &str) -> Result<()> {
        let dir = self.dir.path().display();
        let text = format!(
            "[[watch]]\nport = {port}\nhold_up = \"0s\"\nhold_down = \"0s\"\nexpected_min = 0\n\
             [policy]\n{policy}\n[redis]\nurl = \"redis://127.0.0.1:{port}\"\n{redis}\n\
             [daemon]\nsocket = \"{dir}/control.sock\"\ngroup = \"\"\n\
             state_dir = \"{dir}/state\"\nevidence_dir = \"{dir}/evidence\"\n\
             heartbeat = \"1h\"\nreconcile = \"1h\"\n\
             [history]\nfile = \"{dir}/history.db\"\ninterval = \"1h\"\n{more}\n"
        );
        Ok(std::fs::write(self.config(), text)?)
    }

    /// The evidence files, the oldest first.
    pub fn evidence(&self) -> Vec<Value> {
        let entries = std::fs::read_dir(self.path("evidence"));
        let mut paths: Vec<PathBuf> = entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|it| it == "json"))
            .collect();
        paths.sort();
        let read = |path: &PathBuf| serde_json::from_slice(&std::fs::read(path).ok()?).ok();
        paths.iter().filter_map(read).collect()
    }

    pub fn start(&self) -> Result<Daemon> {
        self.start_with(&[], &[])
    }

    /// Starts with more arguments and environment, and waits until it watches.
    pub fn start_with(&self, extra: &[&str], env: &[(&str, OsString)]) -> Result<Daemon> {
        let mut command = Command::new(place::connleak()?);
        command
            .args(["daemon", "--probes", &gate::family(), "--config"])
            .arg(self.config())
            .args(extra)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("JOURNAL_STREAM")
            .envs(env.iter().map(|(name, value)| (name, value)));
        let mut daemon = Daemon::spawn(&mut command, self.path("control.sock"))?;
        daemon.wait_ready()?;
        Ok(daemon)
    }
}

impl Daemon {
    fn spawn(command: &mut Command, socket: PathBuf) -> Result<Self> {
        let mut child = child::bound(command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {command:?}"))?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            for bytes in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let at = Instant::now();
                if let Ok(mut lines) = kept.lock() {
                    lines.push(Line { at, text });
                }
            }
        });
        Ok(Self {
            child,
            lines,
            socket,
        })
    }

    fn wait_ready(&mut self) -> Result<()> {
        wait::until("the daemon watches", || {
            if self.find(" watches :").is_some() {
                return Some(Ok(()));
            }
            match self.child.try_wait() {
                Ok(None) => None,
                ended => Some(Err(anyhow::anyhow!("the daemon ended ({ended:?})"))),
            }
        })
        .with_context(|| format!("it said {:?}", self.said()))?
        .with_context(|| format!("it said {:?}", self.said()))
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill has no memory effects; the child is not reaped before `end`.
        unsafe {
            libc::kill(self.child.id() as i32, signal);
        }
    }

    /// Ends it with `signal` and waits for its end.
    pub fn end(mut self, signal: i32) -> Result<std::process::ExitStatus> {
        self.signal(signal);
        wait::until("the daemon ends", || self.child.try_wait().transpose())?
            .context("failed to wait for the daemon")
    }

    /// Everything it said until now.
    #[must_use]
    pub fn said(&self) -> Vec<String> {
        let lines = self.lines.lock();
        lines
            .map(|lines| lines.iter().map(|line| line.text.clone()).collect())
            .unwrap_or_default()
    }

    #[must_use]
    pub fn count(&self, part: &str) -> usize {
        let said = self.said();
        said.iter().filter(|line| line.contains(part)).count()
    }

    fn find(&self, part: &str) -> Option<Line> {
        let lines = self.lines.lock().ok()?;
        lines.iter().find(|line| line.text.contains(part)).cloned()
    }

    /// The line that was the `number`th with `part` in it; from 1.
    #[must_use]
    pub fn nth(&self, part: &str, number: usize) -> Option<Line> {
        let lines = self.lines.lock().ok()?;
        let mut found = lines.iter().filter(|line| line.text.contains(part));
        found.nth(number.checked_sub(1)?).cloned()
    }

    /// Waits until it says a line with `part` in it.
    pub fn says(&self, part: &str) -> Result<Line> {
        wait::until(&format!("the daemon to say {part:?}"), || self.find(part))
            .with_context(|| format!("it said {:#?}", self.said()))
    }

    pub fn status(&self) -> Result<Value> {
        let output = self.ask("status", &["-o", "json"])?;
        Ok(serde_json::from_slice(&output)?)
    }

    /// Waits until its first subject, which is the port, has so many connections.
    pub fn counts(&self, count: usize) -> Result<()> {
        wait::until(&format!("{count} connections to be counted"), || {
            let status = self.status().ok()?;
            (status["subjects"][0]["count"] == count).then_some(())
        })
    }

    /// Runs `connleak <verb>` against it.
    pub fn ask(&self, verb: &str, extra: &[&str]) -> Result<Vec<u8>> {
        let output = Command::new(place::connleak()?)
            .arg(verb)
            .arg("--socket")
            .arg(&self.socket)
            .args(extra)
            .output()?;
        ensure!(
            output.status.success(),
            "connleak {verb} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output.stdout)
    }

    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the evidence number `index` says what came of its action.
pub fn completed(home: &Home, index: usize) -> Result<Value> {
    wait::until("complete evidence", || {
        let evidence = home.evidence().into_iter().nth(index)?;
        (!evidence["verdict"].is_null()).then_some(evidence)
    })
    .or_else(|error| bail!("{error}; evidence: {:#?}", home.evidence()))
}
