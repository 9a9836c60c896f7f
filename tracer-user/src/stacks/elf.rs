//! An ELF file's headers and sections, read within bounds: the file belongs to the target and is hostile.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

/// Section tables beyond this are no compiler's work.
const SECTIONS_MAX: u64 = 65_535;
const SEGMENTS_MAX: u64 = 1_024;
const SECTION_NAMES_MAX_BYTES: u64 = 4 << 20;
const SECTION_NAME_MAX_BYTES: usize = 64;
pub(super) const HEADER_BYTES: u64 = 64;
pub(super) const SECTION_HEADER_BYTES: u64 = 64;
const SEGMENT_HEADER_BYTES: u64 = 56;

const PT_LOAD: u32 = 1;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const SEGMENT_EXECUTABLE: u32 = 1;
const SEGMENT_WRITABLE: u32 = 2;
const SHT_NOBITS: u32 = 8;
const SHF_COMPRESSED: u64 = 1 << 11;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;
#[cfg(not(target_arch = "aarch64"))]
const MACHINE: u16 = 62;

#[derive(Debug, thiserror::Error)]
pub(super) enum ElfError {
    #[error("failed to read its ELF file: {0}")]
    Read(#[from] io::Error),
    #[error("its {0} lies outside the file")]
    OutOfFile(&'static str),
    #[error("its {what} is larger than {bound_bytes} bytes")]
    TooLarge {
        what: &'static str,
        bound_bytes: u64,
    },
    #[error("it is not an ELF file")]
    NotElf,
    #[error("it is an ELF file for another machine")]
    OtherMachine,
    #[error("reading its names failed: {0}")]
    Names(String),
}

/// Where the bytes of an ELF file come from. Never a mapping: the target can truncate its file,
/// and a mapping would then kill this process with SIGBUS.
#[derive(Debug)]
pub(super) enum ElfSource {
    File { file: File, len_bytes: u64 },
    Memory(Bytes),
}

impl ElfSource {
    pub(super) fn from_file(file: File) -> io::Result<Self> {
        let len_bytes = file.metadata()?.len();
        Ok(Self::File { file, len_bytes })
    }

    fn len_bytes(&self) -> u64 {
        match self {
            Self::File { len_bytes, .. } => *len_bytes,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Reads exactly `size_bytes`, or fails without allocating more than `bound_bytes`.
    pub(super) fn read(
        &self,
        what: &'static str,
        offset: u64,
        size_bytes: u64,
        bound_bytes: u64,
    ) -> Result<Vec<u8>, ElfError> {
        let end = offset
            .checked_add(size_bytes)
            .ok_or(ElfError::OutOfFile(what))?;
        if end > self.len_bytes() {
            return Err(ElfError::OutOfFile(what));
        }
        if size_bytes > bound_bytes {
            return Err(ElfError::TooLarge { what, bound_bytes });
        }
        match self {
            Self::File { file, .. } => {
                let mut buffer = vec![0; size_bytes as usize];
                file.read_exact_at(&mut buffer, offset)?;
                Ok(buffer)
            }
            Self::Memory(bytes) => Ok(bytes[offset as usize..end as usize].to_vec()),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    kind: u32,
    flags: u32,
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) file_bytes: u64,
    memory_bytes: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) kind: u32,
    pub(super) flags: u64,
    pub(super) address: u64,
    pub(super) offset: u64,
    pub(super) size_bytes: u64,
    pub(super) entry_bytes: u64,
}

impl Section {
    pub(super) fn has_bytes(&self) -> bool {
        self.kind != SHT_NOBITS && self.kind != 0 && self.size_bytes > 0
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.flags & SHF_COMPRESSED != 0
    }
}

/// What the headers of one ELF file say.
#[derive(Debug)]
pub(super) struct Elf {
    /// The first bytes of the file, for writing a packed copy with the same identity.
    pub(super) header: Vec<u8>,
    pub(super) entry: u64,
    pub(super) segments: Vec<Segment>,
    pub(super) sections: Vec<Section>,
}

impl Elf {
    pub(super) fn parse(source: &ElfSource) -> Result<Self, ElfError> {
        let header = source
            .read("header", 0, HEADER_BYTES, HEADER_BYTES)
            .map_err(|error| match error {
                ElfError::OutOfFile(_) => ElfError::NotElf,
                other => other,
            })?;
        if header[..4] != *b"\x7fELF" {
            return Err(ElfError::NotElf);
        }
        // Class 64, little endian.
        if header[4] != 2 || header[5] != 1 || u16_at(&header, 18) != MACHINE {
            return Err(ElfError::OtherMachine);
        }
        let segments = parse_segments(source, &header)?;
        // Some packers strip the section table; the segments alone still unwind.
        let sections = parse_sections(source, &header).unwrap_or_default();
        Ok(Self {
            entry: u64_at(&header, 24),
            header,
            segments,
            sections,
        })
    }

    pub(super) fn held_bytes(&self) -> u64 {
        let sections = self.sections.iter();
        let names: usize = sections.map(|section| section.name.len()).sum();
        let headers = self.sections.len() * size_of::<Section>()
            + self.segments.len() * size_of::<Segment>()
            + self.header.len();
        (headers + names) as u64
    }

    /// Keeps what tells where the file is mapped.
    pub(super) fn without_sections(self) -> Self {
        Self {
            sections: Vec::new(),
            ..self
        }
    }

    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        self.sections
            .iter()
            .find(|section| section.name == name && section.has_bytes())
    }

    /// The lowest address any segment asks for; 0 for nearly every position independent file.
    pub(super) fn base_address(&self) -> u64 {
        let loads = self
            .segments
            .iter()
            .filter(|segment| segment.kind == PT_LOAD);
        loads.map(|segment| segment.address).min().unwrap_or(0)
    }

    /// What to subtract from an address in a mapping of this file at `start`, `offset`, to get the
    /// address the file itself uses.
    pub(super) fn bias(&self, start: u64, offset: u64) -> Option<u64> {
        let holds = |segment: &&Segment| {
            segment.kind == PT_LOAD
                && segment.offset & !0xfff <= offset
                && offset < segment.offset.saturating_add(segment.file_bytes)
        };
        let segment = self
            .segments
            .iter()
            .filter(holds)
            .max_by_key(|segment| segment.flags & SEGMENT_EXECUTABLE)?;
        let address = segment
            .address
            .wrapping_add(offset)
            .wrapping_sub(segment.offset);
        Some(start.wrapping_sub(address))
    }

    pub(super) fn eh_frame_header_segment(&self) -> Option<Segment> {
        let mut segments = self.segments.iter();
        segments
            .find(|segment| segment.kind == PT_GNU_EH_FRAME)
            .copied()
    }

    /// Where the file keeps its variables: address and size, those that begin as zeroes included.
    pub(super) fn variables(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.segments
            .iter()
            .filter(|segment| segment.kind == PT_LOAD && segment.flags & SEGMENT_WRITABLE != 0)
            .map(|segment| (segment.address, segment.memory_bytes))
    }

    pub(super) fn load_segment_at(&self, address: u64) -> Option<Segment> {
        let mut segments = self.segments.iter();
        segments
            .find(|segment| {
                segment.kind == PT_LOAD
                    && address
                        .checked_sub(segment.address)
                        .is_some_and(|distance| distance < segment.file_bytes)
            })
            .copied()
    }

    /// The descriptor of `.note.gnu.build-id`.
    pub(super) fn build_id(&self, source: &ElfSource) -> Option<Vec<u8>> {
        let section = self.section(".note.gnu.build-id")?;
        let note = source
            .read("build id", section.offset, section.size_bytes, 4_096)
            .ok()?;
        let id_bytes = u32_at(note.get(..16)?, 4) as usize;
        let id = note.get(16..16 + id_bytes.min(64))?;
        (id.len() >= 2).then(|| id.to_vec())
    }
}

fn parse_segments(source: &ElfSource, header: &[u8]) -> Result<Vec<Segment>, ElfError> {
    let count = u64::from(u16_at(header, 56));
    if count == 0 {
        return Ok(Vec::new());
    }
    if u64::from(u16_at(header, 54)) != SEGMENT_HEADER_BYTES {
        return Err(ElfError::OutOfFile("segment table"));
    }
    let bound_bytes = SEGMENTS_MAX * SEGMENT_HEADER_BYTES;
    let size_bytes = count * SEGMENT_HEADER_BYTES;
    let table = source.read("segment table", u64_at(header, 32), size_bytes, bound_bytes)?;
    let segment = |raw: &[u8]| Segment {
        kind: u32_at(raw, 0),
        flags: u32_at(raw, 4),
        offset: u64_at(raw, 8),
        address: u64_at(raw, 16),
        file_bytes: u64_at(raw, 32),
        memory_bytes: u64_at(raw, 40),
    };
    Ok(table
        .chunks_exact(SEGMENT_HEADER_BYTES as usize)
        .map(segment)
        .collect())
}

fn parse_sections(source: &ElfSource, header: &[u8]) -> Result<Vec<Section>, ElfError> {
    let table_offset = u64_at(header, 40);
    if table_offset == 0 || u64::from(u16_at(header, 58)) != SECTION_HEADER_BYTES {
        return Ok(Vec::new());
    }
    let first = source.read(
        "section table",
        table_offset,
        SECTION_HEADER_BYTES,
        SECTION_HEADER_BYTES,
    )?;
    // Counts that do not fit 16 bits stand in the first section header (gABI, "Sections").
    let count = match u16_at(header, 60) {
        0 => u64_at(&first, 32),
        count => u64::from(count),
    };
    let names_index = match u16_at(header, 62) {
        0xffff => u32_at(&first, 40) as usize,
        index => usize::from(index),
    };
    let bound_bytes = SECTIONS_MAX * SECTION_HEADER_BYTES;
    let size_bytes = count.saturating_mul(SECTION_HEADER_BYTES);
    let table = source.read("section table", table_offset, size_bytes, bound_bytes)?;
    let headers: Vec<&[u8]> = table.chunks_exact(SECTION_HEADER_BYTES as usize).collect();
    let names = match headers.get(names_index) {
        Some(raw) => source.read(
            "section names",
            u64_at(raw, 24),
            u64_at(raw, 32),
            SECTION_NAMES_MAX_BYTES,
        )?,
        None => Vec::new(),
    };
    let section = |raw: &&[u8]| Section {
        name: section_name(&names, u32_at(raw, 0) as usize),
        kind: u32_at(raw, 4),
        flags: u64_at(raw, 8),
        address: u64_at(raw, 16),
        offset: u64_at(raw, 24),
        size_bytes: u64_at(raw, 32),
        entry_bytes: u64_at(raw, 56),
    };
    Ok(headers.iter().map(section).collect())
}

fn section_name(names: &[u8], offset: usize) -> String {
    let rest = names.get(offset..).unwrap_or_default();
    let rest = &rest[..rest.len().min(SECTION_NAME_MAX_BYTES)];
    let name = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(super) fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// Zeroes where the bytes end: a short header reads as an empty one, never as a panic.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..at.saturating_add(N))
        .and_then(|slice| slice.try_into().ok())
        .unwrap_or([0; N])
}
