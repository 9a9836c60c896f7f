//! A Debian 12 on an ext4 image, with systemd as PID 1; built once a recipe and copied for each machine.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::debian::{Mirrors, run, twice};

const SUITE: &str = "bookworm";
const PACKAGES: &str =
    "systemd,systemd-sysv,dbus,redis-server,redis-tools,python3-minimal,python3-redis,iproute2";
const SIZE: &str = "1G";
/// Of no use in a machine that lives for a minute.
const LEFT_OUT: [&str; 4] = [
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
];

/// The image in the cache, built when this recipe has none yet.
pub(super) fn base(cache: &Path) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    (SUITE, PACKAGES, SIZE, LEFT_OUT).hash(&mut hasher);
    let image = cache.join(format!("{SUITE}-{:016x}.ext4", hasher.finish()));
    if image.exists() {
        return Ok(image);
    }
    std::fs::create_dir_all(cache)
        .with_context(|| format!("failed to create {}", cache.display()))?;
    eprintln!("systemd's disk: building {}", image.display());
    let mirrors = Mirrors::of_this_machine()?;
    twice("build systemd's disk", || build(&mirrors, cache, &image))?;
    Ok(image)
}

fn build(mirrors: &Mirrors, cache: &Path, image: &Path) -> Result<()> {
    let tree = tempfile::tempdir_in(cache).context("failed to create a directory for the disk")?;
    let root = tree.path().join("root");
    let mut bootstrap = Command::new("mmdebstrap");
    bootstrap.args(["--quiet", "--variant=minbase"]);
    bootstrap.arg(format!("--include={PACKAGES}"));
    for path in LEFT_OUT {
        bootstrap.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    // Read by this process's user alone otherwise.
    bootstrap.arg("--mode=root");
    run(bootstrap.arg(SUITE).arg(&root).arg(&mirrors.main))?;
    let partial = image.with_extension("partial");
    drop(std::fs::remove_file(&partial));
    run(Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-L", "root"])
        // 5.10 refuses to write a filesystem that has newer features.
        .args(["-O", "^orphan_file,^metadata_csum_seed", "-d"])
        .arg(&root)
        .arg(&partial)
        .arg(SIZE))?;
    std::fs::rename(&partial, image)
        .with_context(|| format!("failed to name the disk {}", image.display()))
}

/// A copy of the base image with further files in it.
pub(super) struct Disk {
    image: PathBuf,
    /// debugfs's requests so far; it needs neither a mount nor a loop device.
    requests: String,
    /// Where the texts lie until they are written.
    staging: tempfile::TempDir,
    texts: u32,
}

impl Disk {
    pub(super) fn copy(base: &Path, to: &Path) -> Result<Self> {
        run(Command::new("cp")
            .args(["--reflink=auto", "--sparse=always"])
            .arg(base)
            .arg(to))?;
        Ok(Self {
            image: to.to_path_buf(),
            requests: String::new(),
            staging: tempfile::tempdir().context("failed to create a directory for the disk")?,
            texts: 0,
        })
    }

    /// `path` is absolute, without links: /usr/lib, not /lib.
    pub(super) fn file(&mut self, path: &str, from: &Path) {
        let mut made = String::new();
        for part in Path::new(path)
            .parent()
            .into_iter()
            .flat_map(Path::components)
            .skip(1)
        {
            made = format!("{made}/{}", part.as_os_str().to_string_lossy());
            self.requests.push_str(&format!("mkdir \"{made}\"\n"));
        }
        self.requests.push_str(&format!("rm \"{path}\"\n"));
        self.requests
            .push_str(&format!("write \"{}\" \"{path}\"\n", from.display()));
    }

    pub(super) fn text(&mut self, path: &str, text: &str) -> Result<()> {
        let staged = self.staging.path().join(self.texts.to_string());
        self.texts += 1;
        std::fs::write(&staged, text)
            .with_context(|| format!("failed to write {}", staged.display()))?;
        self.file(path, &staged);
        Ok(())
    }

    pub(super) fn symlink(&mut self, path: &str, target: &str) {
        self.requests
            .push_str(&format!("symlink \"{path}\" \"{target}\"\n"));
    }

    /// Carries the requests out and returns the image.
    pub(super) fn write(self) -> Result<PathBuf> {
        let requests = self.staging.path().join("requests");
        std::fs::write(&requests, &self.requests)?;
        let output = Command::new("debugfs")
            .arg("-w")
            .arg("-f")
            .arg(&requests)
            .arg(&self.image)
            .stdin(Stdio::null())
            .output()
            .context("failed to run debugfs")?;
        let words = String::from_utf8_lossy(&output.stderr);
        let complaints: Vec<&str> = words.lines().filter(|line| is_complaint(line)).collect();
        if !output.status.success() || !complaints.is_empty() {
            bail!(
                "failed to write into {}: {}",
                self.image.display(),
                complaints.join("; ")
            );
        }
        Ok(self.image)
    }
}

/// debugfs exits with 0 whatever it could not do. That a directory is there already and that nothing
/// had to be removed is meant.
fn is_complaint(line: &str) -> bool {
    let version = line.starts_with("debugfs ");
    let there = line.starts_with("mkdir:") || line.contains("Ext2 directory already exists");
    let absent = line.starts_with("rm:");
    !(line.trim().is_empty() || version || there || absent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_written_is_a_complaint() {
        assert!(!is_complaint("debugfs 1.47.0 (5-Feb-2023)"));
        assert!(!is_complaint(
            "mkdir: Ext2 directory already exists while creating directory \"usr\""
        ));
        assert!(!is_complaint(
            "rm: File not found by ext2_lookup while trying to resolve filename"
        ));
        assert!(is_complaint("write: No space left on device while writing"));
        assert!(is_complaint("/x: No such file or directory"));
    }
}
