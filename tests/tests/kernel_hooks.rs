//! Hooks that the kernel refuses one way: it carries them another way, and the tracer says so.

use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use connleak_tests::daemon::Home;
use connleak_tests::gate::{self, Need};
use connleak_tests::peer::Peer;
use connleak_tests::report::Report;
use connleak_tests::server::RedisServer;
use connleak_tests::tracer::Tracer;
use tempfile::TempDir;

const TOLD: &str = "state by raw_tp; lost: ";

/// This kernel's types without the name that the state hook's `tp_btf` program is attached by.
fn without_state(types: &mut [u8]) -> Result<()> {
    let name = b"\0btf_trace_inet_sock_set_state\0";
    let at = types.windows(name.len()).position(|it| it == name);
    types[at.context("every kernel has it")? + 1] = b'x';
    Ok(())
}

/// The file that `--btf` is to name, as long as the folder is there.
fn types_without_state() -> Result<(TempDir, String)> {
    let mut types = std::fs::read("/sys/kernel/btf/vmlinux")?;
    without_state(&mut types)?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("vmlinux");
    std::fs::write(&file, types)?;
    let file = file.to_str().context("a path of text")?.to_owned();
    Ok((dir, file))
}

#[test]
fn a_tracepoint_whose_type_is_missing_is_carried_all_the_same_and_told() -> Result<()> {
    let test = "a_tracepoint_whose_type_is_missing_is_carried_all_the_same_and_told";
    if !gate::open(test, Need::Bpf) {
        return Ok(());
    }
    let (_dir, types) = types_without_state()?;
    let peer = Peer::start()?;
    let tracer = Tracer::start_with(&[peer.port()], &["--btf", &types])?;
    let _open = TcpStream::connect(peer.v4())?;
    tracer.signal(libc::SIGINT);
    let ended = tracer.ended()?;
    let report = Report::read(&ended.stdout)?;
    ensure!(report.probes["state"] == "raw_tp", "{:?}", report.probes);
    ensure!(report.outstanding(std::process::id()) == 1, "{report:#?}");
    let told = format!("note: {TOLD}");
    let notes = ended.stderr.iter().filter(|line| line.starts_with(&told));
    ensure!(notes.count() == 1, "{:?}", ended.stderr);
    Ok(())
}

#[test]
fn the_daemon_tells_it_when_it_starts() -> Result<()> {
    if !gate::open("the_daemon_tells_it_when_it_starts", Need::Bpf) {
        return Ok(());
    }
    let (_dir, types) = types_without_state()?;
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    home.configure(redis.port(), "", "")?;
    let daemon = home.start_with(&["--btf", &types], &[])?;
    daemon.says(TOLD)?;
    Ok(())
}
