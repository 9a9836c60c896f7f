//! The Ruby of the Debian release after the one that the tests run on.

use std::fs;

use anyhow::{Context as _, Result};

use super::Wording;
use super::release::Release;
use crate::workspace::Workspace;

const VERSION: &str = "3.3";

pub(super) fn ensure(workspace: &Workspace, wording: Wording) -> Result<()> {
    let release = Release {
        suite: "trixie",
        home: workspace.cache.join("ruby-trixie"),
    };
    let program = format!("ruby{VERSION}");
    let packages = [program.clone(), format!("libruby{VERSION}")];
    if !release.ensure("debian's ruby", &packages, wording)? {
        return Ok(());
    }
    let rubies = workspace.rubies();
    fs::create_dir_all(&rubies)
        .with_context(|| format!("failed to create {}", rubies.display()))?;
    let root = release.root();
    let library = |place: &str| root.join(place).join(format!("{VERSION}.0"));
    let libraries = format!(
        "{}:{}",
        library("usr/lib/ruby").display(),
        library("usr/lib/x86_64-linux-gnu/ruby").display()
    );
    let starter = rubies.join(&program);
    release.starter(&program, &[("RUBYLIB", libraries)], &starter)?;
    wording.found("debian's ruby", &starter.display().to_string());
    Ok(())
}
