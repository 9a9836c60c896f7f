//! The ELF files known to this resolver, each once, bounded in number and in bytes.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;

use super::elf::{ElfError, ElfSource};
use super::image::{Image, ImageKey};

const VDSO_MAX_BYTES: u64 = 64 << 10;

pub(super) struct ImageStore {
    images: HashMap<ImageKey, Entry>,
    last_number: u64,
    clock: u64,
    bounds: ImageBounds,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ImageBounds {
    pub(super) images: usize,
    /// Headers and unwind tables, of all files together.
    pub(super) tables_bytes: u64,
    pub(super) names_bytes: u64,
    pub(super) section_bytes: u64,
}

struct Entry {
    image: Result<Rc<Image>, Rc<str>>,
    used_at: u64,
}

impl ImageStore {
    pub(super) fn new(bounds: ImageBounds) -> Self {
        Self {
            images: HashMap::new(),
            last_number: 0,
            clock: 0,
            bounds,
        }
    }

    /// How much of the tables one process may have.
    pub(super) fn share_bytes(&self) -> u64 {
        self.bounds.tables_bytes / 2
    }

    pub(super) fn open(&mut self, file: File, is_system: bool) -> Result<Rc<Image>, Rc<str>> {
        let metadata = file
            .metadata()
            .map_err(|error| Rc::from(error.to_string()))?;
        let key = ImageKey::of(&metadata);
        self.get_or_read(key, is_system, || Ok(ElfSource::from_file(file)?))
    }

    /// The vdso of this very process: the kernel maps the same one everywhere.
    pub(super) fn vdso(&mut self, proc_root: &Path) -> Result<Rc<Image>, Rc<str>> {
        self.get_or_read(ImageKey::VDSO, true, || {
            Ok(ElfSource::Memory(read_own_vdso(&proc_root.join("self"))?))
        })
    }

    fn get_or_read(
        &mut self,
        key: ImageKey,
        is_system: bool,
        source: impl FnOnce() -> Result<ElfSource, ElfError>,
    ) -> Result<Rc<Image>, Rc<str>> {
        self.clock += 1;
        if let Some(entry) = self.images.get_mut(&key) {
            entry.used_at = self.clock;
            return entry.image.clone();
        }
        self.last_number += 1;
        let image = source()
            .and_then(|source| Image::read(self.last_number, source, self.bounds.section_bytes))
            .map(|image| Rc::new(image.of_system(is_system)))
            .map_err(|error| Rc::from(error.to_string()));
        let entry = Entry {
            image: image.clone(),
            used_at: self.clock,
        };
        self.images.insert(key, entry);
        image
    }

    pub(super) fn held_bytes(&self) -> u64 {
        let images = self.images.values().flat_map(|entry| entry.image.as_ref());
        images
            .map(|image| image.names_bytes() + image.tables_bytes)
            .sum()
    }

    fn tables_bytes(&self) -> u64 {
        let images = self.images.values().flat_map(|entry| entry.image.as_ref());
        images.map(|image| image.tables_bytes).sum()
    }

    /// Forgets files that no process uses any more, oldest first, until the bounds hold. `false`
    /// if they cannot hold before a process is forgotten.
    pub(super) fn shrink(&mut self) -> bool {
        while self.images.len() > self.bounds.images
            || self.tables_bytes() > self.bounds.tables_bytes
        {
            let unused = |entry: &&(&ImageKey, &Entry)| match &entry.1.image {
                Ok(image) => Rc::strong_count(image) == 1,
                Err(_) => true,
            };
            let oldest = self
                .images
                .iter()
                .filter(|entry| unused(&entry))
                .min_by_key(|(_, entry)| entry.used_at)
                .map(|(key, _)| *key);
            match oldest {
                Some(key) => self.images.remove(&key),
                None => return false,
            };
        }
        true
    }

    /// Drops the names of the files not asked for the longest until the bound holds; the file
    /// just used keeps its own.
    pub(super) fn shrink_names(&mut self, just_used: &Rc<Image>) {
        let mut by_age: Vec<(u64, Rc<Image>)> = self
            .images
            .values()
            .filter_map(|entry| Some((entry.used_at, Rc::clone(entry.image.as_ref().ok()?))))
            .filter(|(_, image)| image.names_bytes() > 0)
            .collect();
        let mut total_bytes: u64 = by_age.iter().map(|(_, image)| image.names_bytes()).sum();
        by_age.sort_by_key(|(used_at, _)| *used_at);
        for (_, image) in by_age {
            if total_bytes <= self.bounds.names_bytes {
                break;
            }
            if !Rc::ptr_eq(&image, just_used) {
                total_bytes -= image.names_bytes();
                image.drop_names();
            }
        }
    }
}

/// Opens a regular file and nothing else: opening a pipe would block, opening a device acts.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    // O_PATH opens nothing yet, so what is checked is what is then opened.
    let place = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
        .open(path)?;
    if !place.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

fn read_own_vdso(own_proc: &Path) -> io::Result<Bytes> {
    let maps = std::fs::read_to_string(own_proc.join("maps"))?;
    let missing = || io::Error::new(io::ErrorKind::NotFound, "no vdso is mapped");
    let line = maps
        .lines()
        .find(|line| line.ends_with("[vdso]"))
        .ok_or_else(missing)?;
    let (start, end) = line
        .split(' ')
        .next()
        .and_then(|range| range.split_once('-'))
        .ok_or_else(missing)?;
    let address = |text: &str| u64::from_str_radix(text, 16).map_err(|_| missing());
    let (start, end) = (address(start)?, address(end)?);
    let size_bytes = end.saturating_sub(start).min(VDSO_MAX_BYTES);
    let mut bytes = vec![0; size_bytes as usize];
    File::open(own_proc.join("mem"))?.read_exact_at(&mut bytes, start)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vdso_is_read_from_memory_and_has_unwind_tables() {
        let mut images = ImageStore::new(ImageBounds {
            images: 1,
            tables_bytes: 1 << 20,
            names_bytes: 0,
            section_bytes: 1 << 20,
        });
        let vdso = images.vdso(Path::new("/proc")).expect("a vdso");
        assert!(!vdso.unwind.is_empty());
        assert!(vdso.elf.section(".dynsym").is_some());
    }

    #[test]
    fn pipes_and_devices_are_not_opened() {
        assert!(open_regular(Path::new("/dev/zero")).is_err());
        assert!(open_regular(Path::new("/proc/self")).is_err());
    }
}
