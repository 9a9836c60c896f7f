//! A tool of another field that reads what connleak wrote: it must be there, and must be content.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Runs it with `input`, and gives what it printed.
pub fn read_with(
    program: impl AsRef<OsStr>,
    arguments: &[&str],
    input: impl AsRef<[u8]>,
) -> Result<String> {
    let program = program.as_ref();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to run {program:?}; run `cargo xtask setup`"))?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    let input = input.as_ref().to_vec();
    // Beside the reading of its output, or both sides could wait for each other.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output()?;
    // A tool that has read enough may close its input.
    let _ = writer.join();
    ensure!(
        output.status.success(),
        "{program:?} {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).context("it printed text")
}
