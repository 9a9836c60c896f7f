//! What connleak refuses: one line with a remedy on stderr, exit 2, nothing left in the kernel.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use connleak_tests::gate::{self, Need};
use connleak_tests::tracer::{self, Ended, Tracer};
use connleak_tests::{kernel_ids, place, server, wait};

/// Leftovers are found by comparing the kernel's ids before and after: one refusal at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn ensure_refused(refuse: impl FnOnce() -> Result<Ended>) -> Result<String> {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let before = kernel_ids::loaded().unwrap_or_default();
    let ended = refuse()?;
    ensure!(
        ended.status.code() == Some(2),
        "exit is {}: {:?}",
        ended.status,
        ended.stderr
    );
    let lines: Vec<&String> = ended
        .stderr
        .iter()
        .filter(|l| !l.trim().is_empty())
        .collect();
    ensure!(lines.len() == 1, "one line, not {lines:?}");
    let line = lines[0];
    ensure!(
        line.contains("; ") || line.contains(": "),
        "no cause and remedy in {line:?}"
    );
    ensure!(!line.contains("panicked"), "{line:?}");
    ensure!(
        ended.stdout.is_empty(),
        "stdout: {:?}",
        String::from_utf8_lossy(&ended.stdout)
    );
    // Programs are freed after an RCU grace period, so the last may take a moment.
    wait::until("nothing is left in the kernel", || {
        kernel_ids::left_behind(&before)
            .unwrap_or_default()
            .is_empty()
            .then_some(())
    })
    .with_context(|| format!("left: {:?}", kernel_ids::left_behind(&before)))?;
    Ok(line.clone())
}

fn ensure_names(line: &str, words: &[&str]) -> Result<()> {
    let lower = line.to_lowercase();
    ensure!(
        words.iter().any(|w| lower.contains(w)),
        "{line:?} names none of {words:?}"
    );
    Ok(())
}

#[test]
fn not_root() -> Result<()> {
    if !gate::open("not_root", Need::Root) {
        return Ok(());
    }
    // The build folder may lie under /root, where nobody else may go.
    let folder = tempfile::TempDir::with_prefix("connleak-nobody-")?;
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let binary = folder.path().join("connleak");
    std::fs::copy(place::connleak()?, &binary)?;
    std::fs::set_permissions(&binary, Permissions::from_mode(0o755))?;
    let line = ensure_refused(|| {
        let mut command = Command::new(&binary);
        command
            .args(["trace", "--port", "6379"])
            .current_dir("/")
            .gid(65534)
            .uid(65534);
        Tracer::spawn(&mut command)?.ended()
    })?;
    ensure_names(&line, &["root", "cap_bpf"])
}

#[test]
fn no_btf() -> Result<()> {
    if !gate::open("no_btf", Need::Bpf) {
        return Ok(());
    }
    let line = ensure_refused(|| tracer::run(&["trace", "--btf", "/nonexistent/vmlinux"]))?;
    ensure_names(&line, &["/nonexistent/vmlinux"])
}

#[test]
fn btf_that_is_none() -> Result<()> {
    if !gate::open("btf_that_is_none", Need::Bpf) {
        return Ok(());
    }
    let line = ensure_refused(|| tracer::run(&["trace", "--btf", "/proc/version"]))?;
    ensure_names(&line, &["/proc/version"])
}

#[test]
fn a_port_out_of_range() -> Result<()> {
    for port in ["0", "65536", "70000", "-1", "redis", ""] {
        let line = ensure_refused(|| tracer::run(&["trace", &format!("--port={port}")]))?;
        ensure_names(&line, &["port"])?;
        ensure_names(&line, &["65535"])?;
    }
    Ok(())
}

#[test]
fn an_unknown_option() -> Result<()> {
    ensure_refused(|| tracer::run(&["trace", "--prot", "6379"]))?;
    ensure_refused(|| tracer::run(&["trace", "--probes", "magic"]))?;
    ensure_refused(|| tracer::run(&["trace", "--for", "soon"]))?;
    ensure_refused(|| tracer::run(&["tarce"]))?;
    Ok(())
}

#[test]
fn a_pid_that_does_not_exist() -> Result<()> {
    if !gate::open("a_pid_that_does_not_exist", Need::Bpf) {
        return Ok(());
    }
    // Above PID_MAX_LIMIT: no process can ever have it.
    let line = ensure_refused(|| tracer::run(&["trace", "--pid", "4194305"]))?;
    ensure_names(&line, &["4194305"])
}

#[test]
fn an_output_that_cannot_be_written() -> Result<()> {
    if !gate::open("an_output_that_cannot_be_written", Need::Bpf) {
        return Ok(());
    }
    let port = server::free_port()?.to_string();
    for format in ["json", "table"] {
        ensure_refused(|| {
            // Not Tracer: its stdout is a pipe.
            let output = Command::new(place::connleak()?)
                .args(["trace", "--for", "1s", "--port", &port, "-o", format])
                .stdout(File::options().write(true).open("/dev/full")?)
                .stderr(Stdio::piped())
                .output()?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            // What it says while it runs is no error.
            let words = |l: &&str| !l.starts_with("tracing :") && !l.starts_with("note: ");
            let stderr = stderr.lines().filter(words).map(str::to_owned).collect();
            Ok(Ended {
                status: output.status,
                stdout: Vec::new(),
                stderr,
            })
        })?;
    }
    Ok(())
}

#[test]
fn a_recording_that_cannot_be_written() -> Result<()> {
    if !gate::open("a_recording_that_cannot_be_written", Need::Bpf) {
        return Ok(());
    }
    let line = ensure_refused(|| {
        tracer::run(&["trace", "--for", "1s", "--record", "/nonexistent/recording"])
    })?;
    ensure_names(&line, &["/nonexistent/recording"])
}

#[test]
fn a_hook_that_the_kernel_refuses() -> Result<()> {
    let name = "a_hook_that_the_kernel_refuses";
    if !gate::open(name, Need::Root) {
        return Ok(());
    }
    if gate::kernel_has_kprobes() {
        gate::skip(name, "kernel of the host refuses no hook");
        return Ok(());
    }
    for family in ["kprobe", "fentry"] {
        let line = ensure_refused(|| tracer::run(&["trace", "--probes", family]))?;
        ensure_names(&line, &[family])?;
        ensure_names(&line, &["--probes"])?;
    }
    Ok(())
}

#[test]
fn a_broken_pipe_is_success() -> Result<()> {
    if !gate::open("a_broken_pipe_is_success", Need::Bpf) {
        return Ok(());
    }
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let port = server::free_port()?.to_string();
    let output = Command::new(place::connleak()?)
        .args(["trace", "--for", "1s", "--port", &port, "-o", "json"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()?;
    ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
