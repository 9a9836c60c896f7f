//! `connleak top` in a real terminal: keys, sizes, hostile names, and the terminal given back.

use anyhow::{Context, Result, ensure};
use connleak_tests::actor::{Actors, FIRST};
use connleak_tests::daemon::Home;
use connleak_tests::gate::{self, Need};
use connleak_tests::peer::Peer;
use connleak_tests::script::{How, Op};
use connleak_tests::server::RedisServer;
use connleak_tests::tmux::Tmux;
use connleak_tests::{place, tracer};

/// As in the shell of the terminal.
fn top(arguments: &str) -> Result<String> {
    let connleak = place::connleak()?;
    let family = gate::family();
    Ok(format!(
        "{} top --interval 200ms --probes {family} {arguments}",
        connleak.display()
    ))
}

/// A process with a name that opens connections.
struct Opener {
    actors: Actors,
    opened: u32,
}

impl Opener {
    fn named(name: &[u8], arguments: &[&str]) -> Result<Self> {
        let mut actors = Actors::start_with(arguments)?;
        actors.order(FIRST, Op::Name { bytes: name.into() })?;
        Ok(Self { actors, opened: 0 })
    }

    fn open(&mut self, peer: &Peer, connections: u32) -> Result<()> {
        for _ in 0..connections {
            let op = Op::Open {
                socket: self.opened,
                how: How::Connect,
                to: peer.v4(),
            };
            self.actors.order(FIRST, op)?;
            self.opened += 1;
        }
        Ok(())
    }
}

/// (outstanding, name) of each row of the list.
fn rows(lines: &[String]) -> Vec<(String, String)> {
    let head = lines.iter().position(|line| line.contains("OUTST"));
    let rows = lines.iter().skip(head.map_or(usize::MAX, |head| head + 1));
    rows.map_while(|line| {
        // The cursor stands before its row's PID.
        let line = line.trim_start_matches('>');
        let words: Vec<&str> = line.split_whitespace().collect();
        words.first()?.parse::<u32>().ok()?;
        Some(((*words.get(1)?).to_owned(), (*words.last()?).to_owned()))
    })
    .collect()
}

fn names(lines: &[String]) -> Vec<String> {
    rows(lines).into_iter().map(|(_, name)| name).collect()
}

fn waits_for_names(tmux: &Tmux, wanted: &[&str]) -> Result<Vec<String>> {
    tmux.until(&format!("the rows {wanted:?}"), |lines| {
        names(lines) == wanted
    })
}

/// Does some sequence set a colour? 39 and 49 only set the terminal's own again.
fn has_color(screen: &str) -> bool {
    let sequences = screen.split("\u{1b}[").skip(1);
    let parameters = sequences.filter_map(|it| it.split_once('m')).map(|it| it.0);
    let mut numbers = parameters.flat_map(|it| it.split(';'));
    numbers.any(|it| matches!(it.parse(), Ok(30..=38 | 40..=48 | 90..=97 | 100..=107)))
}

/// Escape, and nothing after it until it was understood: with the next key it would be Alt.
fn go_back(tmux: &Tmux) -> Result<()> {
    tmux.press("Escape")?;
    tmux.shows("OUTST").map(drop)
}

#[test]
fn keys_sort_filter_open_freeze_and_quit_at_every_size() -> Result<()> {
    let name = "keys_sort_filter_open_freeze_and_quit_at_every_size";
    if !gate::open(name, Need::Bpf) {
        return Ok(());
    }
    let peer = Peer::start()?;
    let mut found = Opener::named(b"found", &[])?;
    found.open(&peer, 6)?;
    let (mut early, mut late) = (Opener::named(b"early", &[])?, Opener::named(b"late", &[])?);
    let tmux = Tmux::start(80, 24)?;
    tmux.run("echo shown before")?;
    tmux.run(&top(&format!("--port {}", peer.port()))?)?;
    waits_for_names(&tmux, &["found"])?;
    tmux.shows("traced here")?;
    early.open(&peer, 2)?;
    waits_for_names(&tmux, &["found", "early"])?;
    late.open(&peer, 4)?;
    waits_for_names(&tmux, &["found", "late", "early"])?;

    tmux.press("g")?;
    waits_for_names(&tmux, &["late", "early", "found"])?;
    tmux.shows("by growth")?;
    tmux.press("a")?;
    waits_for_names(&tmux, &["early", "late", "found"])?;
    tmux.press("o")?;
    waits_for_names(&tmux, &["found", "late", "early"])?;

    for key in ["/", "E", "A", "R"] {
        tmux.press(key)?;
    }
    waits_for_names(&tmux, &["early"])?;
    tmux.shows("/EAR_")?;
    tmux.press("Enter")?;
    tmux.shows("q quit")?;
    tmux.press("Escape")?;
    waits_for_names(&tmux, &["found", "late", "early"])?;

    tmux.press("Enter")?;
    tmux.shows("6 outstanding: opened before tracing started")?;
    tmux.press("Tab")?;
    let pid = found.actors.pid(FIRST).context("a pid")?;
    tmux.shows(&format!("held by {pid}/"))?;
    go_back(&tmux)?;
    tmux.press("Down")?;
    tmux.press("Enter")?;
    // The stack of a connect that was seen.
    tmux.shows("4 outstanding, ")?;
    go_back(&tmux)?;

    tmux.press("f")?;
    let frozen = tmux.shows("FROZEN")?;
    late.open(&peer, 1)?;
    peer.wait_accepted(13)?;
    tmux.press("Down")?;
    let still = tmux.shows("FROZEN")?;
    ensure!(rows(&still) == rows(&frozen), "{frozen:#?} {still:#?}");
    tmux.press("f")?;
    tmux.until("the fifth connection of late", |lines| {
        rows(lines).contains(&("5".to_owned(), "late".to_owned()))
    })?;

    tmux.press("?")?;
    tmux.shows("any key leaves it")?;
    tmux.press("x")?;
    tmux.resize(40, 10)?;
    let small = tmux.until("the list in 40 columns", |lines| {
        lines.len() == 10 && lines[9].starts_with("q quit") && names(lines).len() == 3
    })?;
    ensure!(
        small.iter().all(|line| line.chars().count() <= 40),
        "{small:#?}"
    );
    tmux.press("Enter")?;
    tmux.shows("[sites] sockets")?;
    go_back(&tmux)?;
    tmux.resize(80, 24)?;
    tmux.until("the list in 80 columns", |lines| {
        lines.len() == 24 && lines[23].starts_with("q quit") && names(lines).len() == 3
    })?;
    ensure!(has_color(&tmux.screen_with_colors()?), "no colour");

    tmux.press("q")?;
    tmux.is_restored()?;
    let lines = tmux.shows("shown before")?;
    ensure!(
        !lines.iter().any(|line| line.contains("OUTST")),
        "{lines:#?}"
    );
    Ok(())
}

#[test]
fn names_with_escape_sequences_do_nothing_and_no_color_has_none() -> Result<()> {
    let name = "names_with_escape_sequences_do_nothing_and_no_color_has_none";
    if !gate::open(name, Need::Bpf) {
        return Ok(());
    }
    let peer = Peer::start()?;
    let argument = "arg\u{1b}]2;pwned\u{7}\u{1b}[2J\u{9b}1m\nline";
    let mut evil = Opener::named(b"evil\x1b[31m\x07\r\nx", &[argument])?;
    evil.open(&peer, 3)?;
    // Wide enough for the whole of what is hostile.
    let tmux = Tmux::start(200, 24)?;
    let title = tmux.variable("pane_title")?;
    let top = top(&format!("--port {}", peer.port()))?;
    tmux.run(&format!("NO_COLOR=1 {top}"))?;
    tmux.shows("evil\\u{1b}[31m\\u{7}")?;
    tmux.shows("arg\\u{1b}]2;pwned")?;
    tmux.press("Enter")?;
    tmux.shows("[sites] sockets")?;
    let shown = tmux.screen_with_colors()?;
    ensure!(!has_color(&shown), "{shown:?}");
    ensure!(tmux.variable("pane_title")? == title);

    // SIGTERM: nobody pressed a key.
    let pid = tmux.foreground_pid()?;
    // SAFETY: kill has no memory effects; the shell has not reaped its child yet.
    unsafe { libc::kill(pid as i32, libc::SIGTERM) };
    tmux.is_restored()
}

#[test]
fn it_shows_the_daemons_numbers_and_says_when_the_daemon_is_gone() -> Result<()> {
    let name = "it_shows_the_daemons_numbers_and_says_when_the_daemon_is_gone";
    if !gate::open(name, Need::Bpf) {
        return Ok(());
    }
    let redis = RedisServer::start()?;
    let peer = std::net::TcpStream::connect(redis.v4())?;
    let home = Home::new()?;
    home.configure(redis.port(), "", "")?;
    let daemon = home.start()?;
    let tmux = Tmux::start(80, 24)?;
    tmux.run(&top(&format!("--config {}", home.config().display()))?)?;
    tmux.shows(&format!("daemon {}", daemon.pid()))?;
    tmux.shows("HEALTHY 2")?;
    tmux.press("Enter")?;
    tmux.shows("1 outstanding: opened before tracing started")?;
    tmux.press("Tab")?;
    tmux.shows(&format!("held by {}/", std::process::id()))?;
    drop(peer);
    ensure!(daemon.end(libc::SIGTERM)?.success());
    tmux.shows("failed to ask the daemon")?;
    tmux.press("C-c")?;
    tmux.is_restored()
}

#[test]
fn what_is_no_screen_is_refused_in_one_line() -> Result<()> {
    let ended = tracer::run(&["top"])?;
    ensure!(ended.status.code() == Some(2), "{ended:?}");
    ensure!(
        ended.stderr
            == ["connleak: failed to draw on stdout: it is no terminal; use `connleak trace`"],
        "{ended:?}"
    );
    let tmux = Tmux::start(120, 24)?;
    tmux.run(&format!("TERM=dumb {}; echo code $?", top("")?))?;
    tmux.shows("TERM says that it cannot move its cursor")?;
    tmux.until("exit code 2", |lines| {
        lines.iter().any(|line| line == "code 2")
    })
    .map(drop)
}
