//! A perf map: where a process says what the code is that it compiled itself.
//!
//! The target writes it, by a name that everyone knows, into a folder that everyone may write: it is
//! opened below the target's own root without following a link, believed only if it belongs to the
//! target's user, and read within bounds.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::java;
use crate::procfs;

/// A large JVM's has some 5 MiB. One that is larger than this is not read at all: of two entries
/// for one address the last is true, and it might be among those left out.
const FILE_MAX_BYTES: u64 = 64 << 20;
const LINE_MAX_BYTES: u64 = 4 << 10;
const NAME_MAX_BYTES: usize = 512;
const ENTRIES_MAX: usize = 200_000;
const HELD_MAX_BYTES: usize = 32 << 20;
/// Of an entry, beside its name: its place in the tree, and what counts the name's users.
const ENTRY_OVERHEAD_BYTES: usize = 64;
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// A map that takes long to read is read the less often: other processes' stacks wait meanwhile.
const READING_SHARE: u32 = 20;

/// Why a perf map was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum PerfMapError {
    #[error("failed to read its perf map: {0}")]
    Read(#[from] io::Error),
    #[error("its perf map belongs to another user")]
    Owner,
    #[error("its perf map is no regular file")]
    NotRegular,
    #[error("its perf map is larger than {} MiB", FILE_MAX_BYTES >> 20)]
    TooLarge,
    #[error("its perf map has more than {ENTRIES_MAX} entries, or {} MiB of them", HELD_MAX_BYTES >> 20)]
    TooMany,
}

/// The perf map of one process: read when an address is asked for, again when it has changed.
#[derive(Default)]
pub(super) struct PerfMap {
    entries: Entries,
    seen: Option<Seen>,
    look_again_at: Option<Instant>,
    pub(super) failure: Option<PerfMapError>,
}

/// Code by its address, none overlapping another.
#[derive(Default)]
pub(super) struct Entries {
    by_start: BTreeMap<u64, Entry>,
    bytes: usize,
}

struct Entry {
    end: u64,
    name: Rc<str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
}

impl PerfMap {
    /// What `address` belongs to. `ask_java` says that a JVM may be told to write the map first.
    pub(super) fn name(
        &mut self,
        proc_root: &Path,
        pid: u32,
        address: u64,
        ask_java: bool,
    ) -> Option<Rc<str>> {
        if let Some(name) = self.entries.find(address) {
            return Some(name);
        }
        // Code that is not in the map yet must not have it read for every stack.
        let began = Instant::now();
        if self.look_again_at.is_some_and(|at| began < at) {
            return None;
        }
        let process_dir = proc_root.join(pid.to_string());
        if ask_java {
            java::write_perf_map(&process_dir, pid);
        }
        self.failure = self.read(&process_dir).err();
        let now = Instant::now();
        self.look_again_at = Some(now + LOOK_PAUSE.max((now - began) * READING_SHARE));
        self.entries.find(address)
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.entries.bytes
    }

    fn read(&mut self, process_dir: &Path) -> Result<(), PerfMapError> {
        let Some(file) = open(process_dir)? else {
            return Ok(());
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(PerfMapError::NotRegular);
        }
        // The target's own user, or root, who may write everything anyway.
        if metadata.uid() != 0 && metadata.uid() != fs::metadata(process_dir)?.uid() {
            return Err(PerfMapError::Owner);
        }
        if metadata.len() > FILE_MAX_BYTES {
            (self.entries, self.seen) = (Entries::default(), None);
            return Err(PerfMapError::TooLarge);
        }
        let seen = Seen {
            inode: metadata.ino(),
            size_bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        };
        if self.seen != Some(seen) {
            (self.entries, self.seen) = (Entries::default(), None);
            self.entries = Entries::parse(file)?;
            self.seen = Some(seen);
        }
        Ok(())
    }
}

/// `None` if there is none.
fn open(process_dir: &Path) -> Result<Option<File>, PerfMapError> {
    let root = File::open(process_dir.join("root"))?;
    let inner_pid = inner_pid(process_dir)?;
    match open_within(&root, &format!("tmp/perf-{inner_pid}.map")) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The PID that the process itself sees.
fn inner_pid(process_dir: &Path) -> io::Result<u32> {
    let status = fs::read_to_string(process_dir.join("status"))?;
    let pids = procfs::field(&status, "NSpid");
    let inner = pids.and_then(|pids| pids.split_whitespace().last()?.parse().ok());
    inner.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its status has no NSpid"))
}

/// openat2(2), since 5.6: no link is followed, and nothing outside `root` is reached.
fn open_within(root: &File, path: &str) -> io::Result<File> {
    let path = std::ffi::CString::new(path).map_err(io::Error::other)?;
    // SAFETY: open_how is integers only, for which zero is a value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    // Opening a pipe without this would wait for its writer.
    how.flags = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY) as u64;
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: path and how outlive the call, which reads as many bytes of how as it is told.
    let opened = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    let opened = i32::try_from(opened).map_err(io::Error::other)?;
    if opened < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) }.into())
}

impl Entries {
    /// `START SIZE NAME` a line, numbers in hexadecimal. Lines that are not so are left out; of
    /// two entries for one address the last is true, so that all are read or none is believed.
    pub(super) fn parse(file: impl Read) -> Result<Self, PerfMapError> {
        // The file may grow while it is read.
        let mut lines = BufReader::new(file.take(FILE_MAX_BYTES));
        let mut entries = Self::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            if (&mut lines)
                .take(LINE_MAX_BYTES)
                .read_until(b'\n', &mut line)?
                == 0
            {
                return Ok(entries);
            }
            if line.last() != Some(&b'\n') && line.len() as u64 == LINE_MAX_BYTES {
                lines.skip_until(b'\n')?;
            }
            if let Some((start, end, name)) = parse_line(&line) {
                entries.insert(start, Entry { end, name });
            }
            if entries.by_start.len() > ENTRIES_MAX || entries.bytes > HELD_MAX_BYTES {
                return Err(PerfMapError::TooMany);
            }
        }
    }

    fn insert(&mut self, start: u64, entry: Entry) {
        // What it overlaps was thrown away before it was written.
        while let Some((&other, _)) = self
            .by_start
            .range(..entry.end)
            .next_back()
            .filter(|(_, other)| other.end > start)
        {
            self.remove(other);
        }
        self.bytes += entry.held_bytes();
        self.by_start.insert(start, entry);
    }

    fn remove(&mut self, start: u64) {
        if let Some(entry) = self.by_start.remove(&start) {
            self.bytes -= entry.held_bytes();
        }
    }

    fn find(&self, address: u64) -> Option<Rc<str>> {
        let (_, entry) = self.by_start.range(..=address).next_back()?;
        (address < entry.end).then(|| Rc::clone(&entry.name))
    }

    /// Where each begins and ends, and its name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64, &str)> {
        let entries = self.by_start.iter();
        entries.map(|(start, entry)| (*start, entry.end, &*entry.name))
    }
}

impl Entry {
    fn held_bytes(&self) -> usize {
        ENTRY_OVERHEAD_BYTES + self.name.len()
    }
}

fn parse_line(line: &[u8]) -> Option<(u64, u64, Rc<str>)> {
    let line = String::from_utf8_lossy(line);
    let mut fields = line.trim_end_matches(['\n', '\r']).splitn(3, ' ');
    let mut number = || {
        let text = fields.next()?;
        u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
    };
    let (start, size_bytes) = (number()?, number()?);
    let end = start.checked_add(size_bytes).filter(|end| *end > start)?;
    let name: String = fields.next()?.chars().take(NAME_MAX_BYTES).collect();
    let name = plain_name(name.trim());
    (!name.is_empty()).then(|| (start, end, name.into()))
}

/// A JVM's `java.net.Socket Orders.getClient(java.lang.String, int)` is `Orders.getClient`; other
/// names stay as they are.
fn plain_name(name: &str) -> &str {
    let Some((before, _)) = name.strip_suffix(')').and_then(|name| name.split_once('(')) else {
        return name;
    };
    match before.rsplit_once(' ') {
        Some((_, method)) if method.contains('.') => method,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map_of(text: &str) -> Entries {
        Entries::parse(text.as_bytes()).expect("a map")
    }

    #[test]
    fn the_last_entry_of_an_address_is_true() {
        let map = map_of("1000 100 old\n0x1080 0x10 new\n2000 8 other\n");
        assert_eq!(map.find(0x1085).as_deref(), Some("new"));
        assert_eq!(map.find(0x1000), None);
        assert_eq!(map.find(0x2007).as_deref(), Some("other"));
        assert_eq!(map.find(0x2008), None);
    }

    #[test]
    fn methods_lose_their_types_and_nothing_else_does() {
        let plain = "Orders.getClient";
        assert_eq!(
            plain_name("java.net.Socket Orders.getClient(java.lang.String, int)"),
            plain
        );
        assert_eq!(plain_name("void Orders.getClient()"), plain);
        assert_eq!(plain_name("StubRoutines (1)"), "StubRoutines (1)");
        assert_eq!(plain_name("JS:*get /a.js:1:2"), "JS:*get /a.js:1:2");
    }

    #[test]
    fn a_bad_line_spoils_no_other() {
        let long = "x".repeat(20_000);
        let map = map_of(&format!(
            "what\n1000 zz a\n10 0 b\n3000 10 {long}\n1000 10 good\n"
        ));
        assert_eq!(map.find(0x1004).as_deref(), Some("good"));
        assert_eq!(
            map.find(0x3004).map(|name| name.len()),
            Some(NAME_MAX_BYTES)
        );
    }

    #[test]
    fn a_map_without_end_is_bounded() {
        let endless = Entries::parse(io::repeat(b'x')).expect("it ends");
        assert_eq!(endless.bytes, 0);
    }

    #[test]
    fn a_map_that_is_not_read_whole_is_not_believed() {
        let many = |count: usize, name: &str| -> String {
            let line = |at| format!("{:x} 1 {name}\n", at * 2);
            (0..count).map(line).collect()
        };
        let whole = map_of(&many(ENTRIES_MAX, "f"));
        assert_eq!(whole.iter().count(), ENTRIES_MAX);
        assert!(whole.bytes <= HELD_MAX_BYTES);
        let parse = |text: String| Entries::parse(text.as_bytes());
        let too_many = parse(many(ENTRIES_MAX + 1, "f"));
        assert!(matches!(too_many, Err(PerfMapError::TooMany)));
        let too_long = parse(many(100_000, &"f".repeat(NAME_MAX_BYTES)));
        assert!(matches!(too_long, Err(PerfMapError::TooMany)));
    }

    #[test]
    fn what_was_thrown_away_counts_no_more() {
        let text = "1000 10 f\n".repeat(ENTRIES_MAX * 2);
        let map = map_of(&text);
        assert_eq!(map.bytes, ENTRY_OVERHEAD_BYTES + 1);
    }

    #[test]
    fn links_are_not_followed_and_large_files_not_read() {
        let root = tempfile::tempdir().expect("a folder");
        let process = root.path().join("7");
        let tmp = process.join("root/tmp");
        fs::create_dir_all(&tmp).expect("folders");
        fs::write(process.join("status"), "Name:\tx\nNSpid:\t7\t3\n").expect("a status");
        let place = tmp.join("perf-3.map");
        std::os::unix::fs::symlink("/etc/passwd", &place).expect("a link");
        let mut map = PerfMap::default();
        assert!(matches!(map.read(&process), Err(PerfMapError::Read(_))));
        fs::remove_file(&place).expect("the link goes");
        let sparse = File::create(&place).expect("a file");
        sparse.set_len(1 << 30).expect("a sparse file");
        assert!(matches!(map.read(&process), Err(PerfMapError::TooLarge)));
        fs::write(&place, "1000 10 good\n").expect("a map");
        map.read(&process).expect("a map");
        assert_eq!(map.entries.find(0x1000).as_deref(), Some("good"));
    }

    proptest! {
        #[test]
        fn any_map_has_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..400), address: u64) {
            if let Ok(entries) = Entries::parse(bytes.as_slice()) {
                let _ = entries.find(address);
            }
        }

        #[test]
        fn entries_never_overlap(lines in prop::collection::vec((0_u64..64, 1_u64..16), 0..40)) {
            let text: String = lines.iter().map(|(at, size)| format!("{at:x} {size:x} f\n")).collect();
            let mut last_end = 0;
            for (start, end, _) in map_of(&text).iter() {
                prop_assert!(start >= last_end);
                last_end = end;
            }
        }
    }
}
