//! The DaemonSet: its manifest is one, its configuration is good, its capabilities are enough.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use connleak_tests::client::Client;
use connleak_tests::gate::{self, Need};
use connleak_tests::place;
use connleak_tests::prometheus::dist;
use connleak_tests::server::RedisServer;
use connleak_tests::tracer::{Tracer, trace_arguments};
use tempfile::TempDir;

fn manifest() -> Result<String> {
    let path = dist().join("kubernetes/daemonset.yaml");
    std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
}

/// The schema of Kubernetes' own API, which the package brings along; nothing is asked.
fn is_valid(manifest: &str) -> Result<bool> {
    let validator = place::python()?.with_file_name("kubernetes-validate");
    let dir = TempDir::with_prefix("connleak-kubernetes-")?;
    let path = dir.path().join("manifest.yaml");
    std::fs::write(&path, manifest)?;
    let output = Command::new(&validator)
        .args(["--strict", "--quiet"])
        .arg(&path)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to run {validator:?}; run `cargo xtask setup`"))?;
    Ok(output.status.success())
}

#[test]
fn the_manifest_passes_the_schema_of_kubernetes() -> Result<()> {
    let manifest = manifest()?;
    ensure!(is_valid(&manifest)?);
    for (right, wrong) in [
        ("hostPID: true", "hostPIDs: true"),
        ("hostPID: true", "hostPID: 1"),
        ("drop: [\"ALL\"]", "dropped: [\"ALL\"]"),
    ] {
        let broken = manifest.replace(right, wrong);
        ensure!(broken != manifest && !is_valid(&broken)?, "{wrong} passes");
    }
    Ok(())
}

#[test]
fn the_configuration_in_the_manifest_is_good() -> Result<()> {
    let manifest = manifest()?;
    let (_, rest) = manifest
        .split_once("connleak.toml: |\n")
        .context("the key")?;
    let lines = rest
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with("    "));
    let text: String = lines.map(|line| format!("{}\n", line.trim())).collect();
    ensure!(text.contains("[[watch]]") && text.contains("[export.prometheus]"));
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(text.as_bytes())?;
    let output = Command::new(place::connleak()?)
        .args(["daemon", "--check-config", "--config"])
        .arg(file.path())
        .output()?;
    ensure!(output.status.success(), "{output:?}\n{text}");
    Ok(())
}

/// The list under `add:`, as setpriv names them.
fn capabilities(manifest: &str) -> Result<Vec<String>> {
    let (_, rest) = manifest
        .split_once("              add:\n")
        .context("add:")?;
    let lines = rest.lines().map(str::trim);
    let listed = lines.take_while(|line| line.starts_with("- ") || line.starts_with('#'));
    let names = listed.filter_map(|line| line.strip_prefix("- "));
    Ok(names.map(str::to_lowercase).collect())
}

/// Starts a client of another user, whose program is deleted by the time it runs: as after an
/// upgrade, or as in a container, its path does not lead to it.
fn stranger(port: u16) -> Result<Client> {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::with_prefix("connleak-stranger-")?;
    let program = dir.path().join("hiredis_pool");
    std::fs::copy(place::client("hiredis_pool")?, &program)?;
    for (path, mode) in [(dir.path(), 0o777), (&program, 0o755)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    let script = "exec 9<\"$0\"; rm \"$0\"; exec /proc/self/fd/9 \"$@\"";
    command.args(["sh", "-c", script]).arg(&program);
    command.args(["127.0.0.1", &port.to_string(), "5", "0"]);
    Client::spawn(&mut command)
}

/// Traces with these capabilities alone while a stranger connects; the functions it did so from,
/// none if tracing failed.
fn functions_with(capabilities: &[String], redis: &RedisServer) -> Result<Vec<String>> {
    let set: Vec<String> = capabilities
        .iter()
        .map(|name| format!(",+{name}"))
        .collect();
    let set = format!("-all{}", set.concat());
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", &set, "--inh-caps", "-all"]);
    command.arg(place::connleak()?);
    command.args(trace_arguments(&[redis.port()], "json"));
    let mut tracer = Tracer::spawn(&mut command)?;
    if !tracer.is_tracing()? {
        return Ok(Vec::new());
    }
    let client = stranger(redis.port())?;
    let report = tracer.finish()?;
    let openers = report.openers.iter();
    let found = openers.filter(|opener| opener.pid == Some(client.pid()));
    let stacks = found.flat_map(|opener| &opener.stacks);
    let frames = stacks.flat_map(|stack| &stack.frames);
    Ok(frames.filter_map(|frame| frame.function.clone()).collect())
}

#[test]
fn the_capabilities_of_the_manifest_are_enough_and_each_is_needed() -> Result<()> {
    if !gate::open("the_capabilities_of_the_manifest", Need::Bpf) {
        return Ok(());
    }
    let listed = capabilities(&manifest()?)?;
    ensure!(listed.len() == 5, "{listed:?}");
    let redis = RedisServer::start()?;
    let is_whole = |functions: &[String]| functions.iter().any(|name| name == "main");
    let functions = functions_with(&listed, &redis)?;
    ensure!(is_whole(&functions), "{functions:?}");
    for left_out in &listed {
        let others = listed.iter().filter(|it| *it != left_out);
        let others: Vec<String> = others.cloned().collect();
        let functions = functions_with(&others, &redis)?;
        ensure!(
            !is_whole(&functions),
            "{left_out} is not needed: {functions:?}"
        );
    }
    Ok(())
}
