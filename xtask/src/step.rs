//! A long step: a command whose output is kept back while one line shows that it lives.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write, stderr};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a terminal's line is redrawn.
const REDRAW: Duration = Duration::from_millis(250);
/// How often a log gets a line: often enough that nobody takes the step for hung.
const LOG_LINE: Duration = Duration::from_secs(8);
/// A daemon that inherited the pipes must not keep a step alive after its command has ended.
const DRAIN: Duration = Duration::from_secs(1);
/// A line that is overdue must not turn the wait into a spin.
const LEAST_WAIT: Duration = Duration::from_millis(10);
/// Narrow enough for any terminal: a wrapped line cannot be redrawn.
const WIDTH: usize = 78;

/// What a step said and how long it took.
pub(crate) struct Done {
    pub(crate) output: String,
    pub(crate) elapsed: Duration,
}

/// Runs the command to its end; what it printed is shown only when it fails.
pub(crate) fn run(label: &str, command: &mut Command) -> Result<Done> {
    let (status, done) = watch(label, command)?;
    if !status.success() {
        eprint!("{}", done.output);
        bail!("failed to {label}: {status}");
    }
    Ok(done)
}

/// As [`run`], but leaves the verdict to the caller.
pub(crate) fn watch(label: &str, command: &mut Command) -> Result<(ExitStatus, Done)> {
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {:?}", command.get_program()))?;
    let (sender, lines) = mpsc::channel();
    forward(child.stdout.take(), sender.clone());
    forward(child.stderr.take(), sender);

    let mut line = StatusLine::new(label, began);
    let mut output = String::new();
    let mut ended = None;
    loop {
        match lines.recv_timeout(line.until_due().clamp(LEAST_WAIT, REDRAW)) {
            Ok(text) => {
                output.push_str(&text);
                output.push('\n');
                line.says(&text);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        line.show_if_due();
        if ended.is_none() && child.try_wait()?.is_some() {
            ended = Some(Instant::now());
        }
        if ended.is_some_and(|ended: Instant| ended.elapsed() > DRAIN) {
            break;
        }
    }
    let status = child.wait()?;
    line.clear();
    Ok((
        status,
        Done {
            output,
            elapsed: began.elapsed(),
        },
    ))
}

fn forward(stream: Option<impl Read + Send + 'static>, lines: Sender<String>) {
    let Some(stream) = stream else { return };
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut bytes = Vec::new();
        while matches!(stream.read_until(b'\n', &mut bytes), Ok(1..)) {
            let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            if lines.send(text).is_err() {
                return;
            }
        }
    });
}

/// The one line that shows a step is alive.
struct StatusLine {
    label: String,
    began: Instant,
    shown: Instant,
    every: Duration,
    terminal: bool,
    last: String,
}

impl StatusLine {
    fn new(label: &str, began: Instant) -> Self {
        let terminal = stderr().is_terminal();
        Self {
            label: label.to_owned(),
            began,
            shown: began,
            every: if terminal { REDRAW } else { LOG_LINE },
            terminal,
            last: String::new(),
        }
    }

    fn says(&mut self, text: &str) {
        let text = text.trim();
        if !text.is_empty() {
            self.last = text.chars().filter(|char| !char.is_control()).collect();
        }
    }

    fn until_due(&self) -> Duration {
        self.every.saturating_sub(self.shown.elapsed())
    }

    fn show_if_due(&mut self) {
        if self.shown.elapsed() < self.every {
            return;
        }
        self.shown = Instant::now();
        let elapsed_s = self.began.elapsed().as_secs();
        let line = format!("  {}: {elapsed_s} s  {}", self.label, self.last);
        let line: String = line.chars().take(WIDTH).collect();
        let _ = if self.terminal {
            write!(stderr(), "\r\x1b[2K{line}")
        } else {
            writeln!(stderr(), "{line}")
        };
    }

    fn clear(&self) {
        if self.terminal {
            let _ = write!(stderr(), "\r\x1b[2K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_streams_are_kept() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2"]);
        let done = run("say two words", &mut command).expect("sh runs");
        assert!(done.output.contains("one\n") && done.output.contains("two\n"));
    }

    #[test]
    fn a_failed_command_names_the_step() {
        let mut command = Command::new("false");
        let error = run("do nothing", &mut command).err().expect("false fails");
        assert!(error.to_string().starts_with("failed to do nothing"));
    }

    #[test]
    fn a_daemon_that_keeps_the_pipes_does_not_hold_the_step() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 20 & echo $!"]);
        let done = run("leave a daemon", &mut command).expect("sh runs");
        assert!(done.elapsed < Duration::from_secs(15));
        let pid = done.output.trim().to_owned();
        let _ = Command::new("kill").arg(pid).status();
    }
}
