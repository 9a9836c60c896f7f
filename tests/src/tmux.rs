//! A terminal that a test types on and looks at: a shell in a tmux of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{child, wait};

/// The server and its one pane; both are gone when this is dropped.
pub struct Tmux {
    server: Child,
    socket: PathBuf,
    _dir: TempDir,
}

/// What the shell writes before a command is typed.
const PROMPT: &str = "prompt%";

impl Tmux {
    pub fn start(columns: u16, rows: u16) -> Result<Self> {
        let dir = TempDir::with_prefix("connleak-tmux-")?;
        let socket = dir.path().join("socket");
        // Not a daemon: it ends with us, and the shell with its terminal.
        let mut command = Command::new("tmux");
        command
            .args(["-D", "-u", "-f", "/dev/null", "-S"])
            .arg(&socket)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NO_COLOR")
            .env_remove("TMUX")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let server = child::bound(&mut command)
            .spawn()
            .context("failed to start tmux; run `cargo xtask setup`")?;
        let tmux = Self {
            server,
            socket,
            _dir: dir,
        };
        wait::until("tmux listens", || tmux.socket.exists().then_some(()))?;
        let (columns, rows) = (columns.to_string(), rows.to_string());
        tmux.ask(&["new-session", "-d", "-x", &columns, "-y", &rows, "sh"])?;
        // Not by the environment: root's shell overrules it.
        tmux.run(&format!("PS1='{PROMPT} '"))?;
        tmux.prompts()?;
        Ok(tmux)
    }

    /// Types a command and Enter.
    pub fn run(&self, command: &str) -> Result<()> {
        self.ask(&["send-keys", "-l", "--", command])?;
        self.press("Enter")
    }

    /// Presses one key, as tmux names it.
    pub fn press(&self, key: &str) -> Result<()> {
        self.ask(&["send-keys", "--", key]).map(drop)
    }

    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.ask(&["resize-window", "-x", &columns, "-y", &rows])
            .map(drop)
    }

    /// The lines of the screen, without the blanks at their ends.
    pub fn screen(&self) -> Result<Vec<String>> {
        let text = self.ask(&["capture-pane", "-p"])?;
        Ok(text.lines().map(|it| it.trim_end().to_owned()).collect())
    }

    /// The screen with the escape sequences of its colours.
    pub fn screen_with_colors(&self) -> Result<String> {
        self.ask(&["capture-pane", "-p", "-e"])
    }

    /// A variable of tmux's formats, such as `alternate_on`.
    pub fn variable(&self, name: &str) -> Result<String> {
        let text = self.ask(&["display-message", "-p", &format!("#{{{name}}}")])?;
        Ok(text.trim().to_owned())
    }

    /// Waits until the screen is as `wanted` says, and returns it.
    pub fn until(&self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Result<Vec<String>> {
        wait::until(what, || self.screen().ok().filter(|lines| wanted(lines)))
            .with_context(|| format!("the screen: {:#?}", self.screen()))
    }

    /// Waits until some line contains `text`.
    pub fn shows(&self, text: &str) -> Result<Vec<String>> {
        self.until(&format!("{text:?} on the screen"), |lines| {
            lines.iter().any(|line| line.contains(text))
        })
    }

    /// Waits until the terminal is the shell's again, as it gave it away: main screen, cursor,
    /// lines that are edited and echoed.
    pub fn is_restored(&self) -> Result<()> {
        for (name, value) in [("alternate_on", "0"), ("cursor_flag", "1")] {
            let expected = value.to_owned();
            wait::until_equal(name, &expected, || self.variable(name))?;
        }
        self.prompts()?;
        self.run("stty -a | tr ' ' '\\n' | grep -xe icanon -e echo -e opost | sort | tr '\\n' .")?;
        self.until("a terminal that edits and echoes", |lines| {
            lines
                .iter()
                .any(|line| line.starts_with("echo.icanon.opost."))
        })
        .map(drop)
    }

    /// Waits until the shell waits for a command.
    fn prompts(&self) -> Result<()> {
        self.until("the shell's prompt", |lines| {
            lines
                .iter()
                .rfind(|it| !it.is_empty())
                .is_some_and(|it| it.ends_with(PROMPT))
        })
        .map(drop)
    }

    /// The program that the shell runs now.
    pub fn foreground_pid(&self) -> Result<u32> {
        let shell = self.variable("pane_pid")?;
        wait::until("the shell runs a program", || {
            let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
            children.ok()?.split_whitespace().next()?.parse().ok()
        })
    }

    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("tmux")
            .arg("-u")
            .arg("-S")
            .arg(&self.socket)
            .args(arguments)
            .env_remove("TMUX")
            .output()?;
        ensure!(
            output.status.success(),
            "tmux {arguments:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.ask(&["kill-server"]);
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
