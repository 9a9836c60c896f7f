//! The Pythons of Debian's next release: versions that neither this release nor pyenv has.

use anyhow::Result;

use super::interpreters::Interpreter;
use crate::setup::Wording;
use crate::setup::release::Release;
use crate::workspace::Workspace;

const SUITE: &str = "forky";
const MINORS: [u32; 3] = [13, 14, 15];

pub(super) fn ensure(workspace: &Workspace, wording: Wording) -> Result<Vec<Interpreter>> {
    let release = Release {
        suite: SUITE,
        home: workspace.cache.join("python-forky"),
    };
    if !release.ensure("debian's pythons", &packages(), wording)? {
        return Ok(Vec::new());
    }
    let home = release.root().join("usr").display().to_string();
    MINORS
        .into_iter()
        .map(|minor| {
            let name = format!("python3.{minor}");
            let program = release.home.join(&name);
            release.starter(&name, &[("PYTHONHOME", home.clone())], &program)?;
            Ok(Interpreter {
                name: format!("{SUITE}-3.{minor}"),
                minor,
                program,
            })
        })
        .collect()
}

fn packages() -> Vec<String> {
    let of = |minor| {
        [
            format!("python3.{minor}-minimal"),
            format!("libpython3.{minor}-stdlib"),
        ]
    };
    MINORS.into_iter().flat_map(of).collect()
}
