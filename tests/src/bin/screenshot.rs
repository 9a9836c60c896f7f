//! Prints the screen of `connleak top` over the leaking client, with its colours: what `cargo xtask
//! screenshot` makes the README's picture of.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use anyhow::Result;
use connleak_tests::server::RedisServer;
use connleak_tests::tmux::Tmux;
use connleak_tests::{child, place};

const COLUMNS: u16 = 90;
const ROWS: u16 = 24;
/// The leaker is at LEAK by then.
const SHOWN: &str = "LEAK 6";

fn main() -> Result<()> {
    let redis = RedisServer::start()?;
    let port = redis.port();
    let tmux = Tmux::start(COLUMNS, ROWS)?;
    tmux.run(&format!(
        "{} top --port {port}",
        place::connleak()?.display()
    ))?;
    tmux.shows("traced here")?;
    let mut leaker = child::bound(&mut Command::new(place::client("leaker")?))
        .arg(port.to_string())
        // It stops when this pipe closes.
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let screen = tmux.shows(SHOWN).and_then(|_| tmux.screen_with_colors());
    leaker.kill()?;
    leaker.wait()?;
    Ok(io::stdout().write_all(screen?.as_bytes())?)
}
