//! A Debian archive read with an apt configuration of its own, so that no package of another suite is ever installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// A new kernel is out once in weeks; asking more than once a day only costs time.
const LISTS_MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// Where the machine itself gets Debian from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mirrors {
    pub(crate) main: String,
    pub(crate) security: String,
}

impl Mirrors {
    pub(crate) fn of_this_machine() -> Result<Self> {
        let mut texts = Vec::new();
        if let Ok(text) = std::fs::read_to_string("/etc/apt/sources.list") {
            texts.push(text);
        }
        let parts = std::fs::read_dir("/etc/apt/sources.list.d");
        for part in parts.into_iter().flatten().flatten() {
            let is_source = part
                .path()
                .extension()
                .is_some_and(|e| e == "list" || e == "sources");
            if is_source && let Ok(text) = std::fs::read_to_string(part.path()) {
                texts.push(text);
            }
        }
        Self::parse(&texts.concat()).context(
            "failed to find a Debian mirror in /etc/apt/sources.list and sources.list.d; \
             what is taken from its archive needs a machine with Debian",
        )
    }

    fn parse(sources: &str) -> Option<Self> {
        let addresses: Vec<&str> = sources
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .flat_map(str::split_whitespace)
            .filter(|word| word.contains(":/"))
            .map(|word| word.trim_end_matches('/'))
            .collect();
        let main = addresses.iter().find(|a| a.ends_with("/debian"))?;
        let security = addresses
            .iter()
            .find(|a| a.ends_with("/debian-security"))
            .map_or_else(|| format!("{main}-security"), |a| (*a).to_owned());
        Some(Self {
            main: (*main).to_owned(),
            security,
        })
    }
}

/// Lists and packages of the suites in `sources`, all below one directory.
pub(crate) struct Archive {
    dir: PathBuf,
}

impl Archive {
    pub(crate) fn open(dir: &Path, sources: &str) -> Result<Self> {
        let archive = Self {
            dir: dir.to_path_buf(),
        };
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = dir.join(part);
            std::fs::create_dir_all(&part)
                .with_context(|| format!("failed to create {}", part.display()))?;
        }
        std::fs::write(dir.join("status"), "")?;
        let list = dir.join("sources.list");
        let unchanged = std::fs::read_to_string(&list).is_ok_and(|old| old == sources);
        if !unchanged {
            std::fs::write(&list, sources)
                .with_context(|| format!("failed to write {}", list.display()))?;
        }
        if !(unchanged && archive.lists_are_fresh()) {
            archive.update()?;
        }
        Ok(archive)
    }

    /// One line of a sources list.
    pub(crate) fn source(mirror: &str, suite: &str) -> String {
        format!("deb [arch=amd64 signed-by={KEYRING}] {mirror} {suite} main\n")
    }

    fn lists_are_fresh(&self) -> bool {
        std::fs::metadata(self.stamp())
            .and_then(|m| m.modified())
            .is_ok_and(|at| {
                SystemTime::now()
                    .duration_since(at)
                    .is_ok_and(|age| age < LISTS_MAX_AGE)
            })
    }

    fn stamp(&self) -> PathBuf {
        self.dir.join("updated")
    }

    fn update(&self) -> Result<()> {
        twice("refresh the package lists", || {
            run(self
                .apt("apt-get")
                // Otherwise a mirror that is down passes for an empty one.
                .args(["-o", "APT::Update::Error-Mode=any", "-q", "update"]))
        })?;
        std::fs::write(self.stamp(), "").context("failed to stamp the package lists")
    }

    pub(crate) fn package_names(&self, prefix: &str) -> Result<Vec<String>> {
        let output = self
            .apt("apt-cache")
            .args(["pkgnames", prefix])
            .stderr(Stdio::inherit())
            .output()
            .context("failed to run apt-cache")?;
        if !output.status.success() {
            bail!(
                "failed to list packages {prefix}*: apt-cache {}",
                output.status
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect())
    }

    /// Downloads into `dir` and returns the package's path.
    pub(crate) fn download(&self, package: &str, dir: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("failed to create {}", dir.display()))?;
        twice(&format!("download {package}"), || {
            run(self
                .apt("apt-get")
                .args(["-q", "download", package])
                .current_dir(dir))
        })?;
        let prefix = format!("{package}_");
        std::fs::read_dir(dir)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| {
                path.file_name()
                    .and_then(|n| n.to_str())
                    .is_some_and(|n| n.starts_with(&prefix) && n.ends_with(".deb"))
            })
            .with_context(|| format!("failed to find {package} in {}", dir.display()))
    }

    /// Downloads what `packages` need on a machine that has nothing, and returns the packages.
    pub(crate) fn download_with_dependencies(&self, packages: &[String]) -> Result<Vec<PathBuf>> {
        twice(&format!("download {}", packages.join(" ")), || {
            run(self
                .apt("apt-get")
                .args(["-q", "-y", "--no-install-recommends", "--download-only"])
                .arg("install")
                .args(packages))
        })?;
        let archives = self.dir.join("cache/archives");
        let found = std::fs::read_dir(&archives)
            .with_context(|| format!("failed to list {}", archives.display()))?;
        Ok(found
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .collect())
    }

    fn apt(&self, program: &str) -> Command {
        let dir = self.dir.display();
        let mut command = Command::new(program);
        for option in [
            format!("Dir::Etc::sourcelist={dir}/sources.list"),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={dir}/lists"),
            format!("Dir::State::status={dir}/status"),
            format!("Dir::Cache={dir}/cache"),
            // The unprivileged download user cannot enter /root.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "APT::Default-Release=".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }
}

/// Networks fail for a moment; once more is enough, more hides a broken one.
pub(crate) fn twice<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    match attempt() {
        Ok(value) => Ok(value),
        Err(first) => {
            eprintln!("failed to {what}: {first:#}; trying once more");
            attempt().with_context(|| format!("failed to {what} twice"))
        }
    }
}

/// Runs with both streams on stderr, where progress belongs.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("failed to run {program}"))?;
    if !status.success() {
        bail!("{program}: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_from_deb822_sources() {
        let sources = "Types: deb\n# http://old.example/debian\nURIs: http://a.example/debian/\n\
                       Suites: bookworm\n\nURIs: http://b.example/debian-security\n";
        let mirrors = Mirrors::parse(sources).expect("both are there");
        assert_eq!(mirrors.main, "http://a.example/debian");
        assert_eq!(mirrors.security, "http://b.example/debian-security");
    }

    #[test]
    fn mirrors_come_from_one_line_sources() {
        let sources = "deb [arch=amd64] https://a.example/debian bookworm main\n\
                       deb https://other.example/tools stable main\n";
        let mirrors = Mirrors::parse(sources).expect("one is there");
        assert_eq!(mirrors.security, "https://a.example/debian-security");
    }

    #[test]
    fn a_machine_without_debian_has_no_mirrors() {
        assert_eq!(
            Mirrors::parse("deb http://x.example/ubuntu noble main\n"),
            None
        );
    }
}
