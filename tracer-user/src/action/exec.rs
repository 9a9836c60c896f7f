//! An exec runs the configured command with the evidence on its stdin, bounded in time and output.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout, timeout_at};

use crate::policy::decision::Outcome;

/// Kept of each of stdout and stderr; the rest is read and dropped, so that the command can go on.
const MAX_OUTPUT_BYTES: usize = 16 << 10;
/// A command that ended may leave a child with our pipe open: it is not waited for longer.
const PIPE_GRACE: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRecord {
    pub command: Vec<String>,
    /// None when a signal or the timeout ended it.
    pub exit_code: Option<i32>,
    pub timed_out: bool,
    pub took_ms: u64,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `command` (no shell), tells it the evidence, and says what came of it.
pub async fn run(command: &[String], evidence: &[u8], wait: Duration) -> (Outcome, ExecRecord) {
    let mut record = ExecRecord {
        command: command.to_vec(),
        ..ExecRecord::default()
    };
    let Some((program, arguments)) = command.split_first() else {
        let error = "failed to run the unit's command: none is configured".to_owned();
        return (Outcome::NotBegun { error }, record);
    };
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .current_dir(Path::new("/"))
        // A group of its own: the timeout ends what it started too.
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(source) => {
            let error = format!("failed to run {program}: {source}");
            return (Outcome::NotBegun { error }, record);
        }
    };
    let group = Group(child.id());
    let started = Instant::now();
    let ended = attend(&mut child, evidence, started + wait, &mut record).await;
    record.took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let outcome = match ended {
        Ok(Some(status)) => {
            record.exit_code = status.code();
            let last = record.stderr.lines().next_back().unwrap_or("").to_owned();
            let said = if last.is_empty() {
                last
            } else {
                format!(": {last}")
            };
            match status.success() {
                true => Outcome::Done,
                false => Outcome::Uncertain {
                    error: format!("{program} ended with {status}{said}"),
                },
            }
        }
        Ok(None) => {
            record.timed_out = true;
            group.kill();
            // Reaped here, or it stays a zombie until the runtime gets to it.
            let _ = timeout(PIPE_GRACE, child.wait()).await;
            Outcome::Uncertain {
                error: format!("{program} was killed after {wait:?}"),
            }
        }
        Err(source) => {
            group.kill();
            Outcome::Uncertain {
                error: format!("failed to wait for {program}: {source}"),
            }
        }
    };
    (outcome, record)
}

/// Feeds, reads and waits at once: one after the other a full pipe would stop both sides.
async fn attend(
    child: &mut Child,
    evidence: &[u8],
    deadline: Instant,
    record: &mut ExecRecord,
) -> std::io::Result<Option<std::process::ExitStatus>> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = {
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A command that reads no evidence is free not to.
                let _ = stdin.write_all(evidence).await;
            }
        };
        let read = async {
            tokio::join!(keep(stdout, &mut out), keep(stderr, &mut err));
        };
        let mut talk = Box::pin(async { tokio::join!(feed, read) });
        let mut talked = false;
        let wait = async {
            loop {
                tokio::select! {
                    status = child.wait() => break status,
                    _ = &mut talk, if !talked => talked = true,
                }
            }
        };
        let status = timeout_at(deadline, wait).await;
        if status.is_ok() && !talked {
            let _ = timeout(PIPE_GRACE, &mut talk).await;
        }
        status
    };
    record.stdout = String::from_utf8_lossy(&out).into_owned();
    record.stderr = String::from_utf8_lossy(&err).into_owned();
    match status {
        Ok(status) => status.map(Some),
        Err(_) => Ok(None),
    }
}

async fn keep(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = [0u8; 4096];
    while let Ok(count) = pipe.read(&mut chunk).await {
        if count == 0 {
            return;
        }
        let room = MAX_OUTPUT_BYTES.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(&chunk[..room]);
    }
}

struct Group(Option<u32>);

impl Group {
    fn kill(&self) {
        let Some(id) = self.0.and_then(|id| libc::pid_t::try_from(id).ok()) else {
            return;
        };
        // SAFETY: kill takes no pointers. The group is the child's own (process_group(0)), and the
        // child is not reaped yet, so its id cannot belong to another group.
        unsafe { libc::kill(-id, libc::SIGKILL) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_command_gets_the_evidence_on_stdin() {
        let (outcome, record) = run(&sh("cat; echo said >&2"), b"{\"id\":7}", PATIENCE).await;
        assert_eq!(outcome, Outcome::Done);
        assert_eq!(record.stdout, "{\"id\":7}");
        assert_eq!(record.stderr, "said\n");
        assert_eq!(record.exit_code, Some(0));
    }

    #[tokio::test]
    async fn a_command_that_fails_may_have_done_something() {
        let (outcome, record) = run(&sh("echo no space >&2; exit 3"), b"", PATIENCE).await;
        let Outcome::Uncertain { error } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(error, "/bin/sh ended with exit status: 3: no space");
        assert_eq!(record.exit_code, Some(3));
    }

    #[tokio::test]
    async fn a_command_that_is_not_there_was_not_begun() {
        let (outcome, _) = run(&["/nonexistent/rollback".to_owned()], b"", PATIENCE).await;
        let Outcome::NotBegun { error } = outcome else {
            panic!("{outcome:?}");
        };
        assert!(
            error.starts_with("failed to run /nonexistent/rollback: No such file"),
            "{error}"
        );
        assert!(matches!(
            run(&[], b"", PATIENCE).await.0,
            Outcome::NotBegun { .. }
        ));
    }

    #[tokio::test]
    async fn at_the_timeout_the_whole_group_is_killed() {
        let file = tempfile::NamedTempFile::new().expect("temp file");
        let script = format!("sleep 1000 & echo $! > {}; wait", file.path().display());
        let wait = Duration::from_secs(1);
        let (outcome, record) = run(&sh(&script), b"", wait).await;
        assert_eq!(
            outcome,
            Outcome::Uncertain {
                error: "/bin/sh was killed after 1s".to_owned()
            }
        );
        assert!(record.timed_out);
        let pid = std::fs::read_to_string(file.path()).expect("a pid");
        let stat = format!("/proc/{}/stat", pid.trim());
        // An orphan that was killed is a zombie until init reaps it.
        let gone = || std::fs::read_to_string(&stat).map_or(true, |text| text.contains(") Z "));
        let deadline = std::time::Instant::now() + PATIENCE;
        while !gone() {
            assert!(std::time::Instant::now() < deadline, "the grandchild lives");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn endless_output_is_bounded_and_does_not_block() {
        let script = "head -c 1000000 /dev/zero | tr '\\0' x; head -c 1000000 /dev/zero >&2";
        let evidence = vec![b' '; 1 << 20];
        let (outcome, record) = run(&sh(script), &evidence, PATIENCE).await;
        assert_eq!(outcome, Outcome::Done);
        assert_eq!(record.stdout.len(), MAX_OUTPUT_BYTES);
        assert_eq!(record.stderr.len(), MAX_OUTPUT_BYTES);
    }

    #[tokio::test]
    async fn a_child_left_behind_with_the_pipe_does_not_hold_us() {
        let (outcome, record) = run(&sh("sleep 5 & echo done"), b"", PATIENCE).await;
        assert_eq!(outcome, Outcome::Done);
        assert_eq!(record.stdout, "done\n");
        assert!(
            record.took_ms < 4000,
            "waited for the child: {} ms",
            record.took_ms
        );
    }
}
