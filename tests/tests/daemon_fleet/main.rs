//! Many machines: daemons that write to one stream, and the view over all of them.

mod follow;
mod outage;

use std::process::Command;
use std::sync::Barrier;
use std::sync::mpsc::channel;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use connleak_tests::client::{Client, Library};
use connleak_tests::cluster::Cluster;
use connleak_tests::daemon::Home;
use connleak_tests::gate::{self, Need};
use connleak_tests::netns::NetNs;
use connleak_tests::server::{RedisServer, SocketServer};
use connleak_tests::tool::read_with;
use connleak_tests::{place, wait};
use serde_json::Value;
use tempfile::TempDir;

const KEY: &str = "connleak:reports";

fn exporting(home: &Home, port: u16, url: &str, more: &str) -> Result<()> {
    let export = format!(
        "[export.stream]\nenabled = true\ninterval = \"1s\"\nurl = \"{url}\"\nkey = \"{KEY}\"\n\
         {more}\n"
    );
    home.configure(port, "", &export)
}

/// What `connleak fleet -o json` prints.
fn fleet(urls: &[&str]) -> Result<Value> {
    let output = Command::new(place::connleak()?)
        .args(["fleet", "-o", "json", "--key", KEY, "--redis"])
        .args(urls)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "connleak fleet: {said}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// This thread's children from now on are on a host of this name.
fn name_host(name: &str) -> Result<()> {
    // SAFETY: unshare affects this thread only; sethostname reads as many bytes as it is told.
    let failed = unsafe {
        libc::unshare(libc::CLONE_NEWUTS) != 0
            || libc::sethostname(name.as_ptr().cast(), name.len()) != 0
    };
    match failed {
        true => Err(std::io::Error::last_os_error()).context("failed to name the host"),
        false => Ok(()),
    }
}

#[test]
fn fleet_names_the_worst_opener_of_three_hosts() -> Result<()> {
    if !gate::open("fleet_names_the_worst_opener_of_three_hosts", Need::Bpf) {
        return Ok(());
    }
    let dir = TempDir::with_prefix("connleak-fleet-")?;
    let central = SocketServer::start(&dir.path().join("redis.sock"))?;
    let url = central.url();
    let hosts = [("host-a", 6), ("host-b", 21), ("host-c", 3)];
    let (ready, all_ready) = channel();
    let over = Barrier::new(hosts.len() + 1);
    let view = thread::scope(|scope| {
        for (name, connections) in hosts {
            let (ready, over, url) = (ready.clone(), &over, &url);
            scope.spawn(move || {
                let host = || -> Result<()> {
                    let netns = NetNs::new()?;
                    netns.enter(|| {
                        name_host(name)?;
                        let redis = RedisServer::start()?;
                        let home = Home::new()?;
                        exporting(&home, redis.port(), url, "")?;
                        let _daemon = home.start()?;
                        let client = Client::start(Library::RedisRs, redis.v4(), connections, 0)?;
                        // Whoever waits may have given up.
                        let _ = ready.send(Ok((name, client.pid())));
                        over.wait();
                        Ok(())
                    })
                };
                if let Err(error) = host() {
                    let _ = ready.send(Err(error));
                    over.wait();
                }
            });
        }
        let looking = || -> Result<(Value, u32)> {
            let mut worst = 0;
            for _ in hosts {
                let (name, pid) = all_ready.recv()??;
                if name == "host-b" {
                    worst = pid;
                }
            }
            let view = wait::until("all of it in the fleet", || {
                let view = fleet(&[&url]).ok()?;
                let outstanding = view["hosts"].as_array()?.iter();
                let outstanding = outstanding.filter_map(|it| it["outstanding"].as_u64());
                (outstanding.sum::<u64>() == 30).then_some(view)
            })?;
            Ok((view, worst))
        };
        let found = looking();
        over.wait();
        found
    });
    let (view, worst) = view?;
    let opener = &view["openers"][0];
    ensure!(
        opener["host"] == "host-b" && opener["pid"] == worst,
        "{view:#}"
    );
    ensure!(opener["outstanding"] == 21, "{view:#}");
    ensure!(opener["sites"][0]["function"].is_string(), "{view:#}");
    let names: Vec<_> = view["hosts"].as_array().into_iter().flatten().collect();
    let names: Vec<_> = names.iter().filter_map(|it| it["host"].as_str()).collect();
    ensure!(names == ["host-b", "host-a", "host-c"], "{names:?}");
    ensure!(
        view["hosts"][0]["boot_id"]
            .as_str()
            .is_some_and(|it| it.len() == 36)
    );

    let output = Command::new(place::connleak()?)
        .args(["fleet", "--redis", &url])
        .output()?;
    let table = String::from_utf8(output.stdout)?;
    ensure!(
        table.starts_with("30 connections outstanding on 3 hosts"),
        "{table}"
    );
    Ok(())
}

/// What any consumer does: it reads entries by their fields, and the report as JSON.
const CONSUMER: &str = r#"
import json, redis, sys
stream = redis.Redis(unix_socket_path=sys.argv[1], decode_responses=True)
entries = [fields for _, fields in stream.xrange(sys.argv[2])]
for fields in entries:
    report = json.loads(fields["report"])
    for field in ("schema", "host", "boot_id", "generated_at"):
        assert report[field] == fields[field] != "", fields
print(len(entries), entries[-1]["boot_id"])
"#;

#[test]
fn the_stream_is_plain_json_and_stays_as_short_as_it_is_told() -> Result<()> {
    if !gate::open("the_stream_is_plain_json", Need::Bpf) {
        return Ok(());
    }
    let dir = TempDir::with_prefix("connleak-fleet-")?;
    let socket = dir.path().join("redis.sock");
    // Redis drops whole nodes of entries when it suits it: nodes of one entry suit it at once.
    let central = SocketServer::start_with(&socket, &["--stream-node-max-entries", "1"])?;
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    exporting(&home, redis.port(), &central.url(), "max_len = 3")?;
    let daemon = home.start()?;
    wait::until("more than it is to keep", || {
        let written = daemon.status().ok()?["stream"]["written"].as_u64()?;
        (written > 5).then_some(())
    })?;
    let socket = socket.to_str().context("a path of text")?;
    let told = read_with(place::python()?, &["-c", CONSUMER, socket, KEY], "")?;
    let (length, boot_id) = told.trim().split_once(' ').context("two words")?;
    ensure!(length == "3", "{length} entries");
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    ensure!(boot_id == boot.trim(), "{boot_id}");
    Ok(())
}

#[test]
fn a_cluster_of_three_holds_the_stream_and_our_own_connections_are_not_counted() -> Result<()> {
    if !gate::open("a_cluster_of_three_holds_the_stream", Need::Bpf) {
        return Ok(());
    }
    let cluster = Cluster::start()?;
    // Two of the three do not have the key's slot, and say where it is.
    let mut homes = Vec::new();
    for address in cluster.addresses() {
        let home = Home::new()?;
        exporting(&home, address.port(), &format!("redis://{address}"), "")?;
        let daemon = home.start()?;
        wait::until("reports in the cluster", || {
            let status = daemon.status().ok()?;
            let written = status["stream"]["written"].as_u64();
            (written > Some(2)).then_some(())
        })
        .map_err(|error| anyhow!("{error}: {:?}", daemon.said()))?;
        let status = daemon.status()?;
        // The probes of Redis and the stream itself.
        ensure!(
            status["ports"][0]["established_both_ends"] == 0,
            "{status:#}"
        );
        homes.push(home);
    }
    let mut seen = Vec::new();
    for address in cluster.addresses() {
        let view = fleet(&[&format!("redis://{address}")])?;
        ensure!(
            view["hosts"].as_array().map(Vec::len) == Some(1),
            "{view:#}"
        );
        seen.push(view["hosts"][0]["generated_at"].clone());
    }
    ensure!(
        seen[0].is_string() && seen.iter().all(|it| *it == seen[0]),
        "{seen:?}"
    );
    Ok(())
}
