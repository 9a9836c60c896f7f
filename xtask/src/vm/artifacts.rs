//! What the tests package becomes for the machines: PID 1, the kernel tests and their clients.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cargo;
use crate::workspace::Workspace;

/// Test targets with this prefix run in the machines.
const KERNEL_TEST_PREFIX: &str = "kernel_";

/// One line of `--message-format=json` that names an executable.
#[derive(Debug, Deserialize)]
struct Artifact {
    target: Target,
    executable: Option<PathBuf>,
    profile: Profile,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TestPackage {
    /// Name and path, by name.
    pub(super) kernel_tests: Vec<(String, PathBuf)>,
    /// The programs the tests start, at the paths that were compiled into the tests.
    pub(super) programs: Vec<(String, PathBuf)>,
}

impl TestPackage {
    pub(super) fn build(workspace: &Workspace) -> Result<Self> {
        let package = ["--package", "connleak-tests", "--all-targets"];
        // In release: emulation is slow enough.
        let arguments = [&["test", "--no-run", "--release"][..], &package].concat();
        let package = Self::parse(&build(workspace, &arguments)?)?;
        if package.kernel_tests.is_empty() {
            bail!(
                "failed to find a test target {KERNEL_TEST_PREFIX}* in the package connleak-tests"
            );
        }
        Ok(package)
    }

    /// The kernel tests, stripped.
    pub(super) fn stripped_kernel_tests(
        &self,
        workspace: &Workspace,
    ) -> Result<Vec<(String, PathBuf)>> {
        self.kernel_tests
            .iter()
            .map(|(name, path)| Ok((name.clone(), stripped(workspace, name, path)?)))
            .collect()
    }

    /// The clients that are not Rust, compiled or copied.
    pub(super) fn clients(&self, workspace: &Workspace) -> Result<Vec<PathBuf>> {
        let dir = workspace.root.join("target/vm/clients");
        let output = Command::new(self.program("compile_clients")?)
            .arg(&dir)
            .output()
            .context("failed to run compile_clients")?;
        if !output.status.success() {
            bail!(
                "failed to compile the clients: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let listing =
            std::fs::read_dir(&dir).with_context(|| format!("failed to read {}", dir.display()))?;
        Ok(listing.flatten().map(|entry| entry.path()).collect())
    }

    pub(super) fn program(&self, name: &str) -> Result<&Path> {
        self.programs
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, path)| path.as_path())
            .with_context(|| {
                format!("failed to find the program {name} in the package connleak-tests")
            })
    }

    fn parse(messages: &str) -> Result<Self> {
        let mut package = Self::default();
        for artifact in executables(messages)? {
            let Artifact {
                target,
                executable: Some(path),
                profile,
            } = artifact
            else {
                continue;
            };
            let is = |kind: &str| target.kind.iter().any(|k| k == kind);
            if is("test") && target.name.starts_with(KERNEL_TEST_PREFIX) {
                package.kernel_tests.push((target.name, path));
            } else if (is("bin") || is("example")) && !profile.test {
                package.programs.push((target.name, path));
            }
        }
        package.kernel_tests.sort();
        package.programs.sort();
        Ok(package)
    }
}

/// A copy of the program without line tables, which nobody reads in a machine and which are most
/// of its size.
pub(super) fn stripped(workspace: &Workspace, name: &str, path: &Path) -> Result<PathBuf> {
    let dir = workspace.root.join("target/vm/stripped");
    std::fs::create_dir_all(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
    let stripped = dir.join(name);
    let status = Command::new("strip")
        .args(["--strip-debug", "-o"])
        .args([&stripped, path])
        .status()
        .context("failed to run strip; run `cargo xtask setup`")?;
    if !status.success() {
        bail!("failed to strip {}: {status}", path.display());
    }
    Ok(stripped)
}

fn executables(messages: &str) -> Result<Vec<Artifact>> {
    messages
        .lines()
        .filter(|line| line.contains("\"reason\":\"compiler-artifact\""))
        .map(|line| {
            serde_json::from_str::<Artifact>(line).context("failed to parse a message of cargo")
        })
        .filter(|artifact| !matches!(artifact, Ok(a) if a.executable.is_none()))
        .collect()
}

fn build(workspace: &Workspace, arguments: &[&str]) -> Result<String> {
    let output = cargo::command(workspace)
        .args(arguments)
        .args(["--quiet", "--message-format=json-render-diagnostics"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("failed to run cargo")?;
    if !output.status.success() {
        bail!(
            "failed to build: cargo {}: {}",
            arguments.join(" "),
            output.status
        );
    }
    String::from_utf8(output.stdout).context("failed to read cargo's messages")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_tests_and_programs_are_told_apart() {
        let message = |kind: &str, name: &str, executable: &str, test: bool| {
            format!(
                "{{\"reason\":\"compiler-artifact\",\"target\":{{\"name\":\"{name}\",\"kind\":[\"{kind}\"]}},\
                 \"profile\":{{\"test\":{test}}},\"executable\":{executable}}}\n"
            )
        };
        let messages = [
            message("lib", "libc", "null", false),
            message("test", "kernel_connect", "\"/t/kernel_connect-1\"", true),
            message("test", "offline", "\"/t/offline-1\"", true),
            message("bin", "guest_init", "\"/t/guest_init\"", false),
            message("bin", "guest_init", "\"/t/guest_init-2\"", true),
        ]
        .concat();
        let package = TestPackage::parse(&messages).expect("well formed");
        assert_eq!(
            package.kernel_tests,
            [("kernel_connect".to_owned(), "/t/kernel_connect-1".into())]
        );
        assert_eq!(
            package.programs,
            [("guest_init".to_owned(), "/t/guest_init".into())]
        );
    }
}
