//! One ELF file that targets have mapped: its unwind tables and names, shared by all of them.

use std::cell::RefCell;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use bytes::Bytes;
use framehop::ExplicitModuleSectionInfo;
use gimli::UnwindSection;

use super::elf::{Elf, ElfError, ElfSource, u32_at};
use super::gopclntab;
use super::symbolize::{NameSources, NamedFrame, Names};

/// Two mappings with equal keys are the same bytes: a file that was replaced has another inode,
/// one that was rewritten has another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ImageKey {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl ImageKey {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The kernel's own object, the same in every process.
    pub(super) const VDSO: Self = Self {
        device: 0,
        inode: 0,
        size_bytes: 0,
        modified: (0, 0),
        changed: (0, 0),
    };
}

enum NameState {
    Unread,
    Ready(Box<Names>),
    /// Tried once; a file that could not be read then is not read again for every stack.
    Failed,
}

pub(super) struct Image {
    /// Unlike the key, never used again for another file: names are cached under it.
    pub(super) number: u64,
    source: ElfSource,
    pub(super) elf: Elf,
    /// Asked of every frame.
    is_go: bool,
    /// One of the system's own, whose lines are not worth their unpacking.
    is_system: bool,
    pub(super) unwind: UnwindTables,
    /// What is held of the file for as long as it is known, names or not.
    pub(super) tables_bytes: u64,
    names: RefCell<NameState>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct UnwindTables {
    eh_frame: Option<(u64, Bytes)>,
    eh_frame_header: Option<(u64, Bytes)>,
    debug_frame: Option<Bytes>,
}

impl Image {
    pub(super) fn read(
        number: u64,
        source: ElfSource,
        section_bound_bytes: u64,
    ) -> Result<Self, ElfError> {
        let elf = Elf::parse(&source)?;
        let unwind = UnwindTables::read(&source, &elf, section_bound_bytes);
        Ok(Self {
            number,
            source,
            tables_bytes: elf.held_bytes() + unwind.bytes(),
            is_go: gopclntab::is_go(&elf),
            is_system: false,
            elf,
            unwind,
            names: RefCell::new(NameState::Unread),
        })
    }

    pub(super) fn of_system(self, is_system: bool) -> Self {
        Self { is_system, ..self }
    }

    /// The functions at `address` (as the file counts), innermost first.
    pub(super) fn lookup(&self, address: u64, sources: &NameSources) -> Vec<NamedFrame> {
        let mut names = self.names.borrow_mut();
        if let NameState::Unread = *names {
            *names = match Names::build(&self.source, &self.elf, sources, !self.is_system) {
                Ok(read) => NameState::Ready(Box::new(read)),
                Err(_) => NameState::Failed,
            };
        }
        let NameState::Ready(read) = &*names else {
            return Vec::new();
        };
        match read.lookup(address) {
            Ok(frames) => frames,
            Err(_) => {
                *names = NameState::Failed;
                Vec::new()
            }
        }
    }

    /// Up to `size_bytes` of the code at `address` (as the file counts).
    pub(super) fn code_at(&self, address: u64, size_bytes: u64) -> Option<Vec<u8>> {
        let segment = self.elf.load_segment_at(address)?;
        let skipped = address - segment.address;
        let size_bytes = size_bytes.min(segment.file_bytes - skipped);
        let offset = segment.offset.checked_add(skipped)?;
        self.source
            .read("code", offset, size_bytes, size_bytes)
            .ok()
    }

    pub(super) fn is_go(&self) -> bool {
        self.is_go
    }

    pub(super) fn names_bytes(&self) -> u64 {
        match &*self.names.borrow() {
            NameState::Ready(names) => names.bytes,
            _ => 0,
        }
    }

    /// Gives the memory back; the names are read again when they are asked for again.
    pub(super) fn drop_names(&self) {
        let mut names = self.names.borrow_mut();
        if let NameState::Ready(_) = *names {
            *names = NameState::Unread;
        }
    }
}

impl UnwindTables {
    fn read(source: &ElfSource, elf: &Elf, bound_bytes: u64) -> Self {
        let section = |name: &str| {
            let section = elf
                .section(name)
                .filter(|section| !section.is_compressed())?;
            let bytes = source
                .read(
                    "unwind table",
                    section.offset,
                    section.size_bytes,
                    bound_bytes,
                )
                .ok()?;
            Some((section.address, Bytes::from(bytes)))
        };
        let mut tables = Self {
            eh_frame: section(".eh_frame"),
            eh_frame_header: section(".eh_frame_hdr"),
            debug_frame: None,
        };
        if tables.eh_frame.is_none() {
            tables = Self::from_segments(source, elf, bound_bytes).unwrap_or_default();
        }
        if tables.eh_frame.is_none() {
            tables.debug_frame = section(".debug_frame").map(|(_, bytes)| bytes);
        }
        tables
    }

    /// A file without section headers still tells the run-time unwinder where its tables are.
    fn from_segments(source: &ElfSource, elf: &Elf, bound_bytes: u64) -> Option<Self> {
        const POINTER_PC_RELATIVE_32: u8 = 0x1b;
        let segment = elf.eh_frame_header_segment()?;
        let header = source
            .read(
                "unwind index",
                segment.offset,
                segment.file_bytes,
                bound_bytes,
            )
            .ok()?;
        if *header.get(1)? != POINTER_PC_RELATIVE_32 {
            return None;
        }
        let distance = i64::from(u32_at(&header, 4) as i32);
        let address = segment
            .address
            .wrapping_add(4)
            .wrapping_add_signed(distance);
        let holder = elf.load_segment_at(address)?;
        let skipped = address - holder.address;
        let frames = source
            .read(
                "unwind table",
                holder.offset.checked_add(skipped)?,
                holder.file_bytes - skipped,
                bound_bytes,
            )
            .ok()?;
        Some(Self {
            eh_frame: Some((address, frames.into())),
            eh_frame_header: Some((segment.address, header.into())),
            debug_frame: None,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.eh_frame.is_none() && self.debug_frame.is_none()
    }

    /// Whether an entry of the tables is about `address`; the unwinder itself does not tell.
    pub(super) fn covers(&self, address: u64) -> bool {
        const SCANNED_MAX_BYTES: usize = 1 << 20;
        let Some((frames_at, frames)) = &self.eh_frame else {
            return self.debug_frame.is_some();
        };
        let mut bases = gimli::BaseAddresses::default().set_eh_frame(*frames_at);
        let section = gimli::EhFrame::new(frames, gimli::LittleEndian);
        let cie = gimli::EhFrame::cie_from_offset;
        let entry = match &self.eh_frame_header {
            Some((header_at, header)) => {
                bases = bases.set_eh_frame_hdr(*header_at);
                let header = gimli::EhFrameHdr::new(header, gimli::LittleEndian);
                let header = header.parse(&bases, 8).ok();
                let table = header.as_ref().and_then(|header| header.table());
                table.and_then(|table| table.fde_for_address(&section, &bases, address, cie).ok())
            }
            // Static musl programs have no index. A large table without one is not worth reading
            // for every address.
            None if frames.len() > SCANNED_MAX_BYTES => return true,
            None => section.fde_for_address(&bases, address, cie).ok(),
        };
        entry.is_some_and(|entry| entry.contains(address))
    }

    fn bytes(&self) -> u64 {
        let length = |table: &Option<(u64, Bytes)>| table.as_ref().map_or(0, |(_, b)| b.len());
        let debug_frame = self.debug_frame.as_ref().map_or(0, Bytes::len);
        (length(&self.eh_frame) + length(&self.eh_frame_header) + debug_frame) as u64
    }

    pub(super) fn for_framehop(&self, elf: &Elf) -> ExplicitModuleSectionInfo<Bytes> {
        let range =
            |(address, bytes): &(u64, Bytes)| *address..address.saturating_add(bytes.len() as u64);
        let span = |name: &str| {
            elf.section(name)
                .map(|section| section.address..section.address.saturating_add(section.size_bytes))
        };
        ExplicitModuleSectionInfo {
            base_svma: elf.base_address(),
            text_svma: span(".text"),
            got_svma: span(".got"),
            eh_frame_svma: self.eh_frame.as_ref().map(range),
            eh_frame: self.eh_frame.as_ref().map(|(_, bytes)| bytes.clone()),
            eh_frame_hdr_svma: self.eh_frame_header.as_ref().map(range),
            eh_frame_hdr: self
                .eh_frame_header
                .as_ref()
                .map(|(_, bytes)| bytes.clone()),
            debug_frame: self.debug_frame.clone(),
            ..ExplicitModuleSectionInfo::default()
        }
    }
}
