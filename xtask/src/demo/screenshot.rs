//! `cargo xtask screenshot`: `connleak top` over the leaking client, as the picture in the README.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::build;
use crate::setup::{self, Scope, Wording};
use crate::workspace::{Workspace, is_root};

/// In the workspace.
const PICTURE: &str = "tracer-user/docs/top.svg";

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    if !is_root() {
        bail!("failed to trace: needs CAP_BPF; run it as root");
    }
    setup::run(workspace, Scope::Tests, Wording::Changes)?;
    let connleak = build::run(workspace)?;
    let output = Command::new(workspace.program("screenshot"))
        .env("CONNLEAK_BIN", &connleak)
        .stderr(Stdio::inherit())
        .output()
        .context("failed to start the terminal")?;
    if !output.status.success() {
        bail!(
            "failed to see `connleak top` in a terminal: {}",
            output.status
        );
    }
    let screen = String::from_utf8_lossy(&output.stdout);
    let picture = workspace.root.join(PICTURE);
    let svg = anstyle_svg::Term::new().render_svg(screen.trim_end());
    if let Some(folder) = picture.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&picture, svg).with_context(|| format!("failed to write {}", picture.display()))?;
    println!("screenshot: {}", picture.display());
    Ok(())
}
