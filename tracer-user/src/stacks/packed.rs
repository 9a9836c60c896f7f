//! A packed copy of an ELF file's symbol and debug sections, in memory of our own.
//!
//! The symbolizer maps the file it reads. Mapping the target's file would let the target kill us by
//! truncating it, so what the symbolizer maps is this copy. Links to other files (debug links,
//! supplements) are left out: they would be opened as root, by a name the target chose.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use super::elf::{
    Elf, ElfError, ElfSource, HEADER_BYTES, SECTION_HEADER_BYTES, Section, u32_at, u64_at,
};
use crate::memory;

const SYMBOL_SECTIONS: [&str; 4] = [".symtab", ".strtab", ".dynsym", ".dynstr"];
/// Location lists, macros and name indices are as large as the rest and never asked for.
const DEBUG_SECTIONS: [&str; 11] = [
    ".debug_info",
    ".debug_abbrev",
    ".debug_line",
    ".debug_str",
    ".debug_line_str",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_addr",
    ".debug_str_offsets",
    ".debug_aranges",
    ".debug_types",
];
const COMPRESSED_ZLIB: u32 = 1;
/// zlib cannot shrink further than about 1 : 1030.
const ZLIB_RATIO_MAX: u64 = 1_032;
const SYMBOL_BYTES: u64 = 24;

/// What one packed copy may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackBounds {
    pub(super) section_bytes: u64,
    pub(super) total_bytes: u64,
}

#[derive(Debug)]
pub(super) struct PackedElf {
    memory: File,
    pub(super) has_debug: bool,
    /// What it occupies once the compressed sections are unpacked.
    pub(super) bytes: u64,
}

impl PackedElf {
    /// `None` if the file names nothing. Debug sections that pass the bounds are left out, so
    /// that symbols remain.
    pub(super) fn build(
        source: &ElfSource,
        elf: &Elf,
        debug: bool,
        bounds: PackBounds,
    ) -> Result<Option<Self>, ElfError> {
        let mut kept = kept_sections(source, elf, &SYMBOL_SECTIONS, bounds);
        let mut bytes = kept.iter().map(|kept| kept.unpacked_bytes).sum::<u64>();
        let mut has_debug = false;
        if debug && elf.section(".debug_info").is_some() {
            let sections = kept_sections(source, elf, &DEBUG_SECTIONS, bounds);
            let debug_bytes = sections.iter().map(|kept| kept.unpacked_bytes).sum::<u64>();
            let whole = ["info", "abbrev", "line"].iter().all(|part| {
                let is_part = |kept: &Kept<'_>| kept.section.name == format!(".debug_{part}");
                sections.iter().any(is_part)
            });
            if whole && bytes + debug_bytes <= bounds.total_bytes {
                has_debug = true;
                bytes += debug_bytes;
                kept.extend(sections);
            }
        }
        if kept.is_empty() || bytes > bounds.total_bytes {
            return Ok(None);
        }
        let memory = write(source, elf, &kept, bounds)?;
        Ok(Some(Self {
            memory,
            has_debug,
            bytes,
        }))
    }

    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.memory.as_raw_fd()))
    }
}

struct Kept<'elf> {
    section: &'elf Section,
    unpacked_bytes: u64,
}

fn kept_sections<'elf>(
    source: &ElfSource,
    elf: &'elf Elf,
    names: &[&str],
    bounds: PackBounds,
) -> Vec<Kept<'elf>> {
    let kept = |name: &&str| {
        let section = elf.section(name)?;
        let unpacked_bytes = unpacked_bytes(source, section)?;
        let fits = unpacked_bytes.max(section.size_bytes) <= bounds.section_bytes;
        fits.then_some(Kept {
            section,
            unpacked_bytes,
        })
    };
    names.iter().filter_map(kept).collect()
}

/// `None` for a compression that is unknown, or a size no compressor can have produced.
fn unpacked_bytes(source: &ElfSource, section: &Section) -> Option<u64> {
    if !section.is_compressed() {
        return Some(section.size_bytes);
    }
    let header = source
        .read("compression header", section.offset, 24, 24)
        .ok()?;
    let unpacked_bytes = u64_at(&header, 8);
    let possible = unpacked_bytes <= section.size_bytes.saturating_mul(ZLIB_RATIO_MAX);
    (u32_at(&header, 0) == COMPRESSED_ZLIB && possible).then_some(unpacked_bytes)
}

/// Layout: header, section headers, section names, then each section at a multiple of 16, because
/// the symbolizer reads symbols in place.
fn write(
    source: &ElfSource,
    elf: &Elf,
    kept: &[Kept<'_>],
    bounds: PackBounds,
) -> Result<File, ElfError> {
    let mut names = vec![0_u8];
    let mut name_offsets = Vec::new();
    for kept in kept {
        name_offsets.push(names.len() as u32);
        names.extend_from_slice(kept.section.name.as_bytes());
        names.push(0);
    }
    let names_offset_in_table = names.len() as u32;
    names.extend_from_slice(b".shstrtab\0");

    let count = kept.len() as u64 + 2;
    let names_at = HEADER_BYTES + count * SECTION_HEADER_BYTES;
    let mut end = names_at + names.len() as u64;
    let mut headers = vec![0_u8; SECTION_HEADER_BYTES as usize];
    let mut places = Vec::new();
    for (kept, name_offset) in kept.iter().zip(&name_offsets) {
        end = end.next_multiple_of(16);
        // A symbol table with a torn last entry is refused whole by the symbolizer.
        let size_bytes = match kept.section.name.as_str() {
            ".symtab" | ".dynsym" => kept.section.size_bytes / SYMBOL_BYTES * SYMBOL_BYTES,
            _ => kept.section.size_bytes,
        };
        places.push((end, size_bytes));
        let header = SectionHeader {
            name: *name_offset,
            kind: kept.section.kind,
            flags: kept.section.flags,
            address: kept.section.address,
            offset: end,
            size_bytes,
            entry_bytes: kept.section.entry_bytes,
        };
        header.append_to(&mut headers);
        end += size_bytes;
    }
    let names_header = SectionHeader {
        name: names_offset_in_table,
        kind: 3,
        flags: 0,
        address: 0,
        offset: names_at,
        size_bytes: names.len() as u64,
        entry_bytes: 0,
    };
    names_header.append_to(&mut headers);

    let mut memory = memory::file()?;
    memory.write_all(&packed_header(elf, count as u16))?;
    memory.write_all(&headers)?;
    memory.write_all(&names)?;
    let mut at = names_at + names.len() as u64;
    for (kept, (offset, size_bytes)) in kept.iter().zip(places) {
        memory.write_all(&[0; 16][..(offset - at) as usize])?;
        let section = kept.section;
        let bytes = source.read("section", section.offset, size_bytes, bounds.section_bytes)?;
        memory.write_all(&bytes)?;
        at = offset + size_bytes;
    }
    Ok(memory)
}

fn packed_header(elf: &Elf, section_count: u16) -> Vec<u8> {
    let mut header = elf.header.clone();
    header[32..40].fill(0);
    header[40..48].copy_from_slice(&HEADER_BYTES.to_le_bytes());
    header[56..58].fill(0);
    header[58..60].copy_from_slice(&(SECTION_HEADER_BYTES as u16).to_le_bytes());
    header[60..62].copy_from_slice(&section_count.to_le_bytes());
    header[62..64].copy_from_slice(&(section_count - 1).to_le_bytes());
    // Executable, whatever the file said: a relocatable one would have relocations applied.
    header[16..18].copy_from_slice(&2_u16.to_le_bytes());
    header
}

struct SectionHeader {
    name: u32,
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    size_bytes: u64,
    entry_bytes: u64,
}

impl SectionHeader {
    fn append_to(&self, table: &mut Vec<u8>) {
        table.extend_from_slice(&self.name.to_le_bytes());
        table.extend_from_slice(&self.kind.to_le_bytes());
        table.extend_from_slice(&self.flags.to_le_bytes());
        table.extend_from_slice(&self.address.to_le_bytes());
        table.extend_from_slice(&self.offset.to_le_bytes());
        table.extend_from_slice(&self.size_bytes.to_le_bytes());
        table.extend_from_slice(&[0; 8]);
        table.extend_from_slice(&16_u64.to_le_bytes());
        table.extend_from_slice(&self.entry_bytes.to_le_bytes());
    }
}
