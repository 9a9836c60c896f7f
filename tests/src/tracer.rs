//! A running `connleak trace`, from "every hook is attached" to its report.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail, ensure};

use crate::report::Report;
use crate::{child, gate, place, wait};

/// Stacks are taken of all connects: sampling begins beyond this.
pub const EVERY_STACK: [&str; 2] = ["--stacks-per-second", "1000000"];

/// The process and what it has written.
pub struct Tracer {
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<String>>>,
    stderr_reader: Option<JoinHandle<()>>,
}

/// How a run of connleak ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<String>,
}

impl Tracer {
    /// Traces `ports` with JSON output and waits until all hooks are attached.
    pub fn start(ports: &[u16]) -> Result<Self> {
        Self::start_with(ports, &[])
    }

    pub fn start_with(ports: &[u16], extra: &[&str]) -> Result<Self> {
        let mut arguments = trace_arguments(ports, "json");
        arguments.extend(extra.iter().map(OsString::from));
        let mut tracer = Self::spawn(Command::new(place::connleak()?).args(arguments))?;
        tracer.wait_ready()?;
        Ok(tracer)
    }

    /// Starts without waiting; the caller may want to kill it before it is ready.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let mut child = child::bound(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {command:?}"))?;
        let mut out = child.stdout.take().context("stdout is piped")?;
        let err = child.stderr.take().context("stderr is piped")?;
        let stdout = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = out.read_to_end(&mut bytes);
            bytes
        });
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&stderr);
        let stderr_reader = std::thread::spawn(move || {
            for line in BufReader::new(err).split(b'\n').map_while(Result::ok) {
                if let Ok(mut lines) = lines.lock() {
                    lines.push(String::from_utf8_lossy(&line).into_owned());
                }
            }
        });
        Ok(Self {
            child,
            stdout: Some(stdout),
            stderr,
            stderr_reader: Some(stderr_reader),
        })
    }

    fn wait_ready(&mut self) -> Result<()> {
        wait::until("connleak says it is tracing", || {
            if self.said("tracing :") {
                return Some(Ok(()));
            }
            match self.child.try_wait() {
                Ok(None) => None,
                ended => Some(Err(anyhow::anyhow!(
                    "connleak ended ({ended:?}): {:?}",
                    self.words()
                ))),
            }
        })
        .with_context(|| format!("stderr: {:?}", self.words()))?
    }

    /// Waits until all hooks are attached; false if it ended instead.
    pub fn is_tracing(&mut self) -> Result<bool> {
        wait::until("connleak traces or ends", || {
            if self.said("tracing :") {
                return Some(Ok(true));
            }
            match self.child.try_wait() {
                Ok(None) => None,
                Ok(Some(_)) => Some(Ok(false)),
                Err(error) => Some(Err(error.into())),
            }
        })?
    }

    fn said(&self, start: &str) -> bool {
        self.stderr
            .lock()
            .is_ok_and(|lines| lines.iter().any(|l| l.starts_with(start)))
    }

    fn words(&self) -> Vec<String> {
        self.stderr
            .lock()
            .map(|lines| lines.clone())
            .unwrap_or_default()
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill has no memory effects; the child is not reaped before `ended`.
        unsafe {
            libc::kill(self.child.id() as i32, signal);
        }
    }

    /// Ends the run with SIGINT, as Ctrl-C does, and reads its report.
    pub fn finish(self) -> Result<Report> {
        self.signal(libc::SIGINT);
        self.report()
    }

    /// Waits for the end of a run with `--for` and reads its report.
    pub fn report(self) -> Result<Report> {
        let ended = self.ended()?;
        ensure!(
            ended.status.success(),
            "connleak failed ({}): {:?}",
            ended.status,
            ended.stderr
        );
        Report::read(&ended.stdout)
    }

    /// Waits for the end, whatever it is.
    pub fn ended(mut self) -> Result<Ended> {
        let status = wait::until("connleak ends", || match self.child.try_wait() {
            Ok(None) => None,
            done => Some(done),
        })
        .with_context(|| format!("stderr: {:?}", self.words()))??
        .context("it has ended")?;
        let stdout = match self.stdout.take().map(JoinHandle::join) {
            Some(Ok(bytes)) => bytes,
            _ => bail!("failed to read connleak's stdout"),
        };
        if let Some(reader) = self.stderr_reader.take() {
            let _ = reader.join();
        }
        Ok(Ended {
            status,
            stdout,
            stderr: self.words(),
        })
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `trace --port N ... --probes F -o FORMAT`.
#[must_use]
pub fn trace_arguments(ports: &[u16], format: &str) -> Vec<OsString> {
    let mut arguments = vec!["trace".to_owned()];
    for port in ports {
        arguments.extend(["--port".into(), port.to_string()]);
    }
    arguments.extend([
        "--probes".into(),
        gate::family(),
        "-o".into(),
        format.into(),
    ]);
    arguments.into_iter().map(OsString::from).collect()
}

/// Runs connleak to its end.
pub fn run(arguments: &[&str]) -> Result<Ended> {
    Tracer::spawn(Command::new(place::connleak()?).args(arguments))?.ended()
}

/// `connleak snapshot` of the ports, now.
pub fn snapshot(ports: &[u16]) -> Result<Report> {
    let mut arguments = vec!["snapshot".to_owned(), "-o".into(), "json".into()];
    for port in ports {
        arguments.extend(["--port".into(), port.to_string()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = run(&arguments)?;
    ensure!(
        ended.status.success(),
        "snapshot failed ({}): {:?}",
        ended.status,
        ended.stderr
    );
    Report::read(&ended.stdout)
}
