//! A process's module table: which file every executable mapping comes from.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use super::image::Image;
use super::images::{ImageStore, open_regular};
use super::library;

/// A target may map as much as vm.max_map_count allows, with long names; this is where we stop.
const MAPS_MAX_BYTES: u64 = 16 << 20;
const MAPPINGS_MAX: usize = 8_192;
const PATH_MAX_BYTES: usize = 4_096;
/// Of a mapping, here and in the unwinder.
const MAPPING_BYTES: usize = size_of::<Mapping>() + 512;
/// Different files; each keeps a descriptor open.
const FILES_MAX: usize = 512;

/// What an executable mapping holds.
#[derive(Clone)]
pub(super) enum Code {
    /// `bias` subtracted from an address gives the address that the file uses.
    Image { image: Rc<Image>, bias: u64 },
    /// A file that could not be read, and why.
    Unreadable(Rc<str>),
    /// Written by the process itself: just-in-time compiled, or a trampoline.
    Anonymous,
}

#[derive(Clone)]
pub(super) struct Mapping {
    pub(super) range: Range<u64>,
    pub(super) offset: u64,
    /// Device and inode as the table spells them: equal text is the same file.
    device_inode: (Box<str>, u64),
    pub(super) path: Rc<str>,
    pub(super) code: Code,
}

impl Mapping {
    /// For a frame; memory without a file has no name.
    pub(super) fn module(&self) -> Option<String> {
        (!self.path.is_empty()).then(|| self.path.to_string())
    }

    /// The last part of its path.
    pub(super) fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    fn is_same(&self, other: &Self) -> bool {
        self.range == other.range
            && self.offset == other.offset
            && self.device_inode == other.device_inode
            && self.path == other.path
    }
}

/// The executable mappings, sorted by address.
#[derive(Default)]
pub(super) struct ModuleTable {
    pub(super) mappings: Vec<Mapping>,
}

/// What one process may have held: it maps whatever it likes.
struct Share {
    files: HashSet<u64>,
    tables_bytes: u64,
    bound_bytes: u64,
}

impl Share {
    /// Refuses what passes the share. An image that was refused and is nobody else's goes with
    /// the next that makes room.
    fn take(&mut self, code: Code) -> Code {
        let Code::Image { image, .. } = &code else {
            return code;
        };
        if self.files.contains(&image.number) {
            return code;
        }
        let tables_bytes = self.tables_bytes + image.tables_bytes;
        if self.files.len() >= FILES_MAX {
            return Code::Unreadable(Rc::from(format!(
                "its process maps more than {FILES_MAX} files"
            )));
        }
        if tables_bytes > self.bound_bytes {
            return Code::Unreadable(Rc::from(format!(
                "the unwind tables of its process are larger than {} MiB",
                self.bound_bytes >> 20
            )));
        }
        self.files.insert(image.number);
        self.tables_bytes = tables_bytes;
        code
    }
}

impl ModuleTable {
    /// Reads the table of the process at `process_dir` (`/proc/PID`). Files that `known` already
    /// has at the same place are taken from there.
    pub(super) fn read(
        proc_root: &Path,
        pid: u32,
        images: &mut ImageStore,
        known: &Self,
    ) -> io::Result<Self> {
        let process_dir = proc_root.join(pid.to_string());
        let maps = File::open(process_dir.join("maps"))?;
        let mut lines = BufReader::new(maps.take(MAPS_MAX_BYTES));
        let mut line = Vec::new();
        let mut mappings: Vec<Mapping> = Vec::new();
        let mut share = Share {
            files: HashSet::new(),
            tables_bytes: 0,
            bound_bytes: images.share_bytes(),
        };
        while mappings.len() < MAPPINGS_MAX {
            line.clear();
            if lines.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let Some(mut mapping) = parse_executable(&String::from_utf8_lossy(&line)) else {
                continue;
            };
            let same = known
                .at(mapping.range.start)
                .filter(|known| known.is_same(&mapping));
            mapping.code = share.take(match same {
                Some(known) => known.code.clone(),
                None => {
                    images.shrink();
                    open_code(proc_root, &process_dir, &mapping, images)
                }
            });
            // The kernel lists them in order; a table that is not sorted could not be searched.
            if mappings
                .last()
                .is_none_or(|last| last.range.end <= mapping.range.start)
            {
                mappings.push(mapping);
            }
        }
        Ok(Self { mappings })
    }

    pub(super) fn at(&self, address: u64) -> Option<&Mapping> {
        let after = self
            .mappings
            .partition_point(|mapping| mapping.range.start <= address);
        let mapping = self.mappings.get(after.checked_sub(1)?)?;
        mapping.range.contains(&address).then_some(mapping)
    }

    /// Beside the files themselves, which other processes map too.
    pub(super) fn held_bytes(&self) -> usize {
        let mappings = self.mappings.iter();
        // The unwinder keeps the path once more.
        let texts: usize = mappings
            .map(|mapping| mapping.path.len() * 2 + mapping.device_inode.0.len())
            .sum();
        self.mappings.len() * MAPPING_BYTES + texts
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.mappings.len() == other.mappings.len()
            && self
                .mappings
                .iter()
                .zip(&other.mappings)
                .all(|(one, other)| one.is_same(other))
    }
}

fn open_code(
    proc_root: &Path,
    process_dir: &Path,
    mapping: &Mapping,
    images: &mut ImageStore,
) -> Code {
    let image = if &*mapping.path == "[vdso]" {
        images.vdso(proc_root)
    } else if mapping.device_inode.1 == 0 {
        return Code::Anonymous;
    } else {
        match open_mapped(process_dir, mapping) {
            Ok(file) => images.open(file, library::is_system(&mapping.path)),
            Err(error) => Err(Rc::from(format!("failed to open its ELF file: {error}"))),
        }
    };
    let image = match image {
        Ok(image) => image,
        Err(why) => return Code::Unreadable(why),
    };
    match image.elf.bias(mapping.range.start, mapping.offset) {
        Some(bias) => Code::Image { image, bias },
        None => Code::Unreadable("no segment of its ELF file is mapped there".into()),
    }
}

/// The executable mappings of files whose names are `wanted`; `None` if the process ended.
///
/// Asked of every process that calls exec: a line of another file is not even parsed.
pub(super) fn executables_named(
    process_dir: &Path,
    wanted: impl Fn(&[u8]) -> bool,
) -> Option<Vec<Mapping>> {
    let maps = File::open(process_dir.join("maps")).ok()?;
    let mut lines = BufReader::new(maps.take(MAPS_MAX_BYTES));
    let mut line = Vec::new();
    let mut found = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line).ok()? == 0 {
            return Some(found);
        }
        let name = line.rsplit(|byte| *byte == b'/').next();
        if name.is_some_and(&wanted) {
            found.extend(parse_executable(&String::from_utf8_lossy(&line)));
        }
    }
}

/// map_files leads to the very file that is mapped, whatever its path means now or in another
/// mount namespace. Its names have no leading zeros, unlike those in maps.
pub(super) fn open_mapped(process_dir: &Path, mapping: &Mapping) -> io::Result<File> {
    let range = &mapping.range;
    let name = format!("map_files/{:x}-{:x}", range.start, range.end);
    let refused = match open_regular(&process_dir.join(name)) {
        Ok(file) => return Ok(file),
        Err(error) => error,
    };
    // map_files needs CAP_CHECKPOINT_RESTORE in the first user namespace; the path does not, but
    // is only believed if it is still the same file.
    use std::os::unix::fs::MetadataExt;
    let path = mapping.path.trim_start_matches('/');
    let file = open_regular(&process_dir.join("root").join(path)).map_err(|_| refused)?;
    let metadata = file.metadata()?;
    let device = metadata.dev();
    let device = format!("{:02x}:{:02x}", libc::major(device), libc::minor(device));
    if (device.as_str(), metadata.ino()) == (&*mapping.device_inode.0, mapping.device_inode.1) {
        Ok(file)
    } else {
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the file at its path is another one",
        ))
    }
}

/// One line of maps: `start-end perms offset device inode path`.
pub(super) fn parse_executable(line: &str) -> Option<Mapping> {
    let mut fields = line.trim_end_matches('\n').splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
    let permissions = fields.next()?;
    let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
    let device = fields.next()?.into();
    let inode = fields.next()?.parse().ok()?;
    let path = fields.next().unwrap_or_default().trim_start();
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    if permissions.as_bytes().get(2) != Some(&b'x') || range.is_empty() {
        return None;
    }
    Some(Mapping {
        range,
        offset,
        device_inode: (device, inode),
        path: path.get(..PATH_MAX_BYTES).unwrap_or(path).into(),
        code: Code::Anonymous,
    })
}

impl Mapping {
    /// For tests and fuzzing.
    pub(super) fn of_image(range: Range<u64>, image: Rc<Image>, bias: u64) -> Self {
        Self {
            range,
            offset: 0,
            device_inode: ("".into(), 1),
            path: "/test/image".into(),
            code: Code::Image { image, bias },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_of_maps_gives_range_offset_and_path() {
        let line = "7f0000001000-7f0000002000 r-xp 00001000 fe:01 42      /opt/a b (deleted)\n";
        let mapping = parse_executable(line).expect("an executable mapping");
        assert_eq!(mapping.range, 0x7f00_0000_1000..0x7f00_0000_2000);
        assert_eq!(mapping.offset, 0x1000);
        assert_eq!(&*mapping.path, "/opt/a b");
        assert_eq!(mapping.device_inode, ("fe:01".into(), 42));
    }

    #[test]
    fn mappings_without_code_are_left_out() {
        assert!(parse_executable("1000-2000 rw-p 00000000 00:00 0 [heap]").is_none());
    }

    #[test]
    fn executables_are_found_by_the_name_of_their_file() {
        let own = std::env::current_exe().expect("our own program");
        let name = own.file_name().expect("a name").as_encoded_bytes();
        let found = executables_named(Path::new("/proc/self"), |it| it.starts_with(name));
        let found = found.expect("we live");
        assert!(found.iter().any(|it| it.file_name().as_bytes() == name));
        let none = executables_named(Path::new("/proc/self"), |it| it.starts_with(b"libpython9."));
        assert!(none.is_some_and(|none| none.is_empty()));
        assert!(executables_named(Path::new("/proc/0"), |_| true).is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_a_line_or_none(line in "\\PC{0,80}") {
            let _ = parse_executable(&line);
        }
    }
}
