//! A machine's first root: files gathered from this one, with the libraries they need.

use std::collections::BTreeMap;
use std::io::BufWriter;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::newc::{Node, Writer};

#[derive(Debug)]
enum Entry {
    Directory,
    /// Read when the archive is written.
    Copy(PathBuf),
    Text(String),
    Symlink(String),
    CharacterDevice(u32, u32),
}

/// What the archive will hold, by path in the guest.
#[derive(Debug)]
pub(crate) struct Initramfs {
    /// Sorted, so that a directory stands before what it holds.
    entries: BTreeMap<String, Entry>,
}

impl Initramfs {
    /// The directories, links and accounts every machine has.
    pub(crate) fn new() -> Self {
        let mut root = Self {
            entries: BTreeMap::new(),
        };
        for dir in [
            "dev",
            "proc",
            "sys",
            "run",
            "tmp",
            "root",
            "etc",
            "usr/bin",
            "usr/sbin",
            "usr/lib",
            "usr/lib64",
            "var/lib",
            "var/tmp",
        ] {
            root.directory(dir);
        }
        // Debian's merged /usr.
        for name in ["bin", "sbin", "lib", "lib64"] {
            root.symlink(name, &format!("usr/{name}"));
        }
        // PID 1 speaks before it can mount devtmpfs.
        root.insert("dev/console", Entry::CharacterDevice(5, 1));
        root.insert("dev/null", Entry::CharacterDevice(1, 3));
        root.text("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
        root.text(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nredis:x:100:100::/var/lib/redis:/bin/false\n\
             nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
        );
        root.text("etc/group", "root:x:0:\nredis:x:100:\nnogroup:x:65534:\n");
        root.text(
            "etc/nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files\n",
        );
        root
    }

    pub(crate) fn text(&mut self, path: &str, text: &str) {
        self.insert(path, Entry::Text(text.to_owned()));
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) {
        self.insert(path, Entry::Symlink(target.to_owned()));
    }

    /// Copies a file under a name of its own.
    pub(crate) fn file(&mut self, path: &str, from: &Path) -> Result<()> {
        if !from.is_file() {
            bail!(
                "failed to add {} to the initramfs: no such file",
                from.display()
            );
        }
        self.insert(path, Entry::Copy(from.to_path_buf()));
        Ok(())
    }

    /// Copies a program and the libraries it needs.
    pub(crate) fn program(&mut self, path: &str, from: &Path) -> Result<()> {
        self.file(path, from)?;
        for library in shared_libraries(from)? {
            let name = library.to_string_lossy().into_owned();
            self.insert(&name, Entry::Copy(library));
        }
        Ok(())
    }

    /// Copies those files below `from` for which `keep` holds.
    pub(crate) fn tree(
        &mut self,
        from: &Path,
        to: &str,
        keep: &dyn Fn(&Path) -> bool,
    ) -> Result<()> {
        let listing = std::fs::read_dir(from)
            .with_context(|| format!("failed to read {}", from.display()))?;
        for entry in listing {
            let entry = entry?;
            let path = entry.path();
            if !keep(&path) {
                continue;
            }
            let place = format!("{to}/{}", entry.file_name().to_string_lossy());
            // Links out of the tree would dangle; what they show is copied instead.
            if path.is_dir() {
                self.directory(&place);
                self.tree(&path, &place, keep)?;
            } else if path.is_file() {
                self.insert(&place, Entry::Copy(path));
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: &str) {
        self.insert(path, Entry::Directory);
    }

    fn insert(&mut self, path: &str, entry: Entry) {
        let path = merged_usr(path.trim_start_matches('/'));
        let mut parent = Path::new(&path).parent();
        while let Some(dir) = parent.filter(|dir| !dir.as_os_str().is_empty()) {
            let dir_name = dir.to_string_lossy().into_owned();
            self.entries.entry(dir_name).or_insert(Entry::Directory);
            parent = dir.parent();
        }
        self.entries.insert(path, entry);
    }

    /// Writes the archive and returns its size.
    pub(crate) fn write(&self, to: &Path) -> Result<u64> {
        let failed = || format!("failed to write the initramfs {}", to.display());
        let file = std::fs::File::create(to).with_context(failed)?;
        let mut writer = Writer::new(BufWriter::new(file));
        for (path, entry) in &self.entries {
            match entry {
                Entry::Directory => writer.add(path, &Node::Directory, 0),
                Entry::Text(text) => {
                    let bytes = text.as_bytes();
                    let executable = bytes.starts_with(b"#!");
                    writer.add(path, &Node::File { bytes, executable }, 0)
                }
                Entry::Symlink(target) => writer.add(path, &Node::Symlink { target }, 0),
                &Entry::CharacterDevice(major, minor) => {
                    writer.add(path, &Node::CharacterDevice { major, minor }, 0)
                }
                Entry::Copy(from) => {
                    let bytes = std::fs::read(from)
                        .with_context(|| format!("failed to read {}", from.display()))?;
                    let metadata = std::fs::metadata(from)?;
                    let node = Node::File {
                        bytes: &bytes,
                        executable: metadata.permissions().mode() & 0o111 != 0,
                    };
                    // Python believes a compiled file only if the source's time is the one it notes.
                    writer.add(path, &node, u32::try_from(metadata.mtime()).unwrap_or(0))
                }
            }
            .with_context(failed)?;
        }
        let file = writer
            .finish()
            .with_context(failed)?
            .into_inner()
            .with_context(failed)?;
        Ok(file.metadata()?.len())
    }
}

/// `lib/x` is `usr/lib/x`: the guest's /lib is a link, and an archive cannot write through it.
fn merged_usr(path: &str) -> String {
    match path.split_once('/') {
        Some(("bin" | "sbin" | "lib" | "lib64", _)) => format!("usr/{path}"),
        _ => path.to_owned(),
    }
}

/// The loader itself is asked, so that its search rules need not be known.
fn shared_libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("failed to run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        if words.contains("not a dynamic executable") || text.contains("statically linked") {
            return Ok(Vec::new());
        }
        bail!(
            "failed to list the libraries of {}: {words}",
            program.display()
        );
    }
    parse_ldd(&text)
        .with_context(|| format!("failed to list the libraries of {}", program.display()))
}

fn parse_ldd(text: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in text.lines() {
        if line.contains("not found") {
            bail!("{}", line.trim());
        }
        // "libx.so => /lib/libx.so (0x..)" or, for the loader, "/lib64/ld.so (0x..)".
        if let Some(path) = line.split_whitespace().find(|word| word.starts_with('/')) {
            libraries.push(PathBuf::from(path));
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_resolved_paths_and_the_loader() {
        let text = "\tlinux-vdso.so.1 (0x00007f)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x1)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x2)\n";
        let libraries = parse_ldd(text).expect("all are found");
        assert_eq!(
            libraries,
            [
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
            .map(PathBuf::from)
        );
    }

    #[test]
    fn a_missing_library_is_an_error_that_names_it() {
        let error = parse_ldd("\tlibx.so.1 => not found\n").expect_err("it is missing");
        assert!(error.to_string().contains("libx.so.1"));
    }

    #[test]
    fn paths_follow_the_merged_usr() {
        assert_eq!(
            merged_usr("lib/x86_64-linux-gnu/libc.so.6"),
            "usr/lib/x86_64-linux-gnu/libc.so.6"
        );
        assert_eq!(merged_usr("library/x"), "library/x");
        assert_eq!(merged_usr("lib"), "lib");
    }

    #[test]
    fn every_parent_stands_before_what_it_holds() {
        let mut root = Initramfs::new();
        root.text("opt/a/b/c", "x");
        let paths: Vec<&str> = root.entries.keys().map(String::as_str).collect();
        let position = |p| paths.iter().position(|x| *x == p).expect("present");
        assert!(position("opt") < position("opt/a"));
        assert!(position("opt/a/b") < position("opt/a/b/c"));
    }
}
