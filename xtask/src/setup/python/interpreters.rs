//! The interpreters that are on this machine already: the distribution's and pyenv's.

use std::env;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The versions whose frames connleak knows: see tracer-user's stacks/python/layout.rs.
const MINORS: RangeInclusive<u32> = 8..=15;

/// A CPython 3.`minor`. Its folder in the cache has its name.
pub(super) struct Interpreter {
    pub(super) name: String,
    pub(super) minor: u32,
    pub(super) program: PathBuf,
}

pub(super) fn of_this_machine() -> Vec<Interpreter> {
    let mut found = Vec::new();
    for minor in MINORS {
        let program = PathBuf::from(format!("/usr/bin/python3.{minor}"));
        if program.is_file() {
            let name = format!("system-3.{minor}");
            found.push(Interpreter {
                name,
                minor,
                program,
            });
        }
    }
    found.extend(pyenv());
    found
}

fn pyenv() -> Vec<Interpreter> {
    let root = env::var_os("PYENV_ROOT")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".pyenv")));
    let versions = root.and_then(|root| fs::read_dir(root.join("versions")).ok());
    let mut found: Vec<Interpreter> = versions
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|version| of_pyenv(&version.path()))
        .collect();
    found.sort_by_key(|python| (python.minor, python.name.clone()));
    found
}

/// Other implementations than CPython have names that do not begin with their version.
fn of_pyenv(version: &Path) -> Option<Interpreter> {
    let full = version.file_name()?.to_str()?;
    let minor = full.strip_prefix("3.")?.split('.').next()?.parse().ok()?;
    let program = version.join(format!("bin/python3.{minor}"));
    (MINORS.contains(&minor) && program.is_file()).then(|| Interpreter {
        name: format!("pyenv-{full}"),
        minor,
        program,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cpython_of_a_known_version_is_taken_from_pyenv() {
        let dir = tempfile::tempdir().expect("a directory");
        for (version, minor) in [("3.12.1", 12), ("3.7.16", 7), ("pypy3.10-7.3", 10)] {
            let bin = dir.path().join(version).join("bin");
            fs::create_dir_all(&bin).expect("made");
            fs::write(bin.join(format!("python3.{minor}")), "").expect("written");
        }
        let minor = |version| of_pyenv(&dir.path().join(version)).map(|python| python.minor);
        assert_eq!(minor("3.12.1"), Some(12));
        assert_eq!(minor("3.7.16"), None);
        assert_eq!(minor("pypy3.10-7.3"), None);
        assert_eq!(minor("3.9.1"), None);
    }
}
