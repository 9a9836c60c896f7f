//! `cargo xtask screenshot`: `connleak top` over the leaking client, as the picture in the README.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::child::Child;
use super::server::Server;
use super::start_leaker;
use crate::build;
use crate::setup::{self, Scope, Wording};
use crate::workspace::{Workspace, is_root};

/// In the workspace.
const PICTURE: &str = "tracer-user/docs/top.svg";
const COLUMNS: &str = "90";
const ROWS: &str = "24";
/// The leaker is at LEAK by then.
const SHOWN: &str = "LEAK 6";
const SHOWN_WITHIN: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(200);

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    if !is_root() {
        bail!("failed to trace: needs CAP_BPF; run it as root");
    }
    setup::run(workspace, Scope::Tests, Wording::Changes)?;
    let connleak = build::run(workspace)?;
    let server = Server::start(None)?;
    let dir = TempDir::with_prefix("connleak-screenshot-").context("failed to make a directory")?;
    let tmux = Tmux::start(dir.path())?;
    let top = format!("{} top --port {}", connleak.display(), server.port);
    tmux.ask(&["new-session", "-d", "-x", COLUMNS, "-y", ROWS, &top])?;
    let first = |screen: &str| screen.contains("traced here");
    tmux.wait_for("the first screen", first)?;
    let leaker = start_leaker(workspace, server.port)?;
    tmux.wait_for(SHOWN, |screen| screen.contains(SHOWN))?;
    let screen = tmux.ask(&["capture-pane", "-p", "-e"])?;
    drop(leaker);

    let picture = workspace.root.join(PICTURE);
    let svg = anstyle_svg::Term::new().render_svg(screen.trim_end());
    if let Some(folder) = picture.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&picture, svg).with_context(|| format!("failed to write {}", picture.display()))?;
    println!("screenshot: {}", picture.display());
    Ok(())
}

/// A tmux server of our own; its sessions end with it.
struct Tmux {
    _server: Child,
    socket: std::path::PathBuf,
}

impl Tmux {
    fn start(dir: &Path) -> Result<Self> {
        let socket = dir.join("socket");
        let mut command = Command::new("tmux");
        command
            .args(["-D", "-u", "-f", "/dev/null", "-S"])
            .arg(&socket)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NO_COLOR")
            .env_remove("TMUX")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let server = Child::spawn(&mut command)?;
        let began = Instant::now();
        while !socket.exists() {
            if began.elapsed() > SHOWN_WITHIN {
                bail!("failed to start tmux: {} does not appear", socket.display());
            }
            thread::sleep(LOOK);
        }
        Ok(Self {
            _server: server,
            socket,
        })
    }

    fn wait_for(&self, what: &str, is_there: impl Fn(&str) -> bool) -> Result<()> {
        let began = Instant::now();
        loop {
            let screen = self.ask(&["capture-pane", "-p"])?;
            if is_there(&screen) {
                return Ok(());
            }
            if began.elapsed() > SHOWN_WITHIN {
                bail!("failed to see {what} within {SHOWN_WITHIN:?}; the screen:\n{screen}");
            }
            thread::sleep(LOOK);
        }
    }

    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("tmux")
            .args(["-u", "-S"])
            .arg(&self.socket)
            .args(arguments)
            .env_remove("TMUX")
            .output()
            .context("failed to run tmux; run `cargo xtask setup`")?;
        if !output.status.success() {
            bail!(
                "failed to ask tmux for {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
