//! `connleak fleet --follow`: a line a second for programs, a picture that moves for people.

use std::io::{BufRead, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use connleak_tests::client::{Client, Library};
use connleak_tests::daemon::Home;
use connleak_tests::gate::{self, Need};
use connleak_tests::server::{RedisServer, SocketServer};
use connleak_tests::tmux::Tmux;
use connleak_tests::{child, place, wait};
use serde_json::Value;
use tempfile::TempDir;

use super::{KEY, exporting};

/// A program that reads what `connleak fleet --follow -o json` prints.
struct Reader {
    child: Child,
    lines: Option<BufReader<ChildStdout>>,
}

impl Reader {
    fn start(url: &str) -> Result<Self> {
        let mut command = Command::new(place::connleak()?);
        let mut child = child::bound(&mut command)
            .args(["fleet", "--follow", "-o", "json", "--key", KEY])
            .args(["--redis", url])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let lines = Some(BufReader::new(stdout));
        Ok(Self { child, lines })
    }

    /// The next view: each is a line of its own.
    fn view(&mut self) -> Result<Value> {
        let mut line = String::new();
        let lines = self.lines.as_mut().context("it is read")?;
        ensure!(lines.read_line(&mut line)? > 0, "it ended");
        Ok(serde_json::from_str(&line)?)
    }

    fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        // A line a second: no view is missed, and the wait is theirs.
        wait::until(what, || match self.view() {
            Ok(view) => wanted(&view).then_some(Ok(view)),
            Err(error) => Some(Err(error)),
        })?
    }

    /// Reads no more, waits for its end, and returns what it had to say.
    fn end(mut self) -> Result<String> {
        drop(self.lines.take());
        let status = wait::until("it ends", || self.child.try_wait().transpose())??;
        ensure!(
            status.success(),
            "who stops reading is no failure: {status}"
        );
        let mut said = String::new();
        let stderr = self.child.stderr.as_mut().context("stderr is piped")?;
        stderr.read_to_string(&mut said)?;
        Ok(said)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn outstanding(view: &Value) -> Option<u64> {
    view["hosts"][0]["outstanding"].as_u64()
}

#[test]
fn who_follows_the_fleet_sees_it_change_and_outlives_its_redis() -> Result<()> {
    if !gate::open("who_follows_the_fleet_sees_it_change", Need::Bpf) {
        return Ok(());
    }
    let dir = TempDir::with_prefix("connleak-fleet-")?;
    let socket = dir.path().join("redis.sock");
    let central = SocketServer::start(&socket)?;
    let url = central.url();
    let mut reader = Reader::start(&url)?;
    let view = reader.view()?;
    ensure!(view["hosts"] == Value::Array(Vec::new()), "{view:#}");

    let redis = RedisServer::start()?;
    let home = Home::new()?;
    exporting(&home, redis.port(), &url, "")?;
    let _daemon = home.start()?;
    let client = Client::start(Library::RedisRs, redis.v4(), 7, 0)?;
    let view = reader.until("its opener", |view| outstanding(view) == Some(7))?;
    ensure!(view["openers"][0]["pid"] == client.pid(), "{view:#}");
    client.end()?;
    reader.until("its end", |view| outstanding(view) == Some(0))?;

    drop(central);
    // It goes on with what it knows, and it grows old.
    let age = |view: &Value| view["hosts"][0]["age_s"].as_f64();
    reader.until("the age of what it heard", |view| age(view) > Some(3.0))?;
    let _central = SocketServer::start(&socket)?;
    let _client = Client::start(Library::RedisRs, redis.v4(), 5, 0)?;
    reader.until("the next opener", |view| outstanding(view) == Some(5))?;
    let said = reader.end()?;
    let complaints = said.matches("failed to read the stream").count();
    ensure!(complaints == 1 && said.lines().count() == 1, "{said}");
    Ok(())
}

#[test]
fn the_table_of_who_follows_is_drawn_over_itself() -> Result<()> {
    if !gate::open("the_table_of_who_follows_is_drawn_over_itself", Need::Bpf) {
        return Ok(());
    }
    let dir = TempDir::with_prefix("connleak-fleet-")?;
    let central = SocketServer::start(&dir.path().join("redis.sock"))?;
    let url = central.url();
    let redis = RedisServer::start()?;
    let home = Home::new()?;
    exporting(&home, redis.port(), &url, "")?;
    let _daemon = home.start()?;
    let tmux = Tmux::start(100, 24)?;
    let connleak = place::connleak()?;
    let connleak = connleak.display();
    tmux.run(&format!(
        "{connleak} fleet --follow --key {KEY} --redis {url}"
    ))?;
    tmux.shows("0 connections outstanding on 1 host")?;
    let _client = Client::start(Library::RedisRs, redis.v4(), 7, 0)?;
    let screen = tmux.shows("7 connections outstanding on 1 host")?;
    let heads = screen.iter().filter(|it| it.contains("outstanding on"));
    ensure!(heads.count() == 1, "{screen:#?}");
    ensure!(screen[0].starts_with("7 connections"), "{screen:#?}");
    tmux.press("C-c")?;
    tmux.is_restored()
}
