//! Where a program's file has the table, and beside it the trees of inlined calls.

use super::super::elf::{Elf, ElfError, ElfSource, Section, u64_at};
use super::{GoTable, Version};

/// Where linkers put it; the second in position independent programs.
const SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];
/// Where `runtime.firstmoduledata` lies; the first since 1.26.
const MODULE_SECTIONS: [&str; 3] = [".go.module", ".noptrdata", ".data"];
const MODULE_SECTION_MAX_BYTES: u64 = 16 << 20;

pub(in super::super) fn is_go(elf: &Elf) -> bool {
    section(elf).is_some()
}

fn section(elf: &Elf) -> Option<&Section> {
    SECTIONS.iter().find_map(|name| elf.section(name))
}

impl GoTable {
    /// `None` if the file has no such table, or one of a version that is not known.
    pub(in super::super) fn read(
        source: &ElfSource,
        elf: &Elf,
        bound_bytes: u64,
    ) -> Result<Option<Self>, ElfError> {
        let Some(section) = section(elf) else {
            return Ok(None);
        };
        let bytes = source.read(
            "Go function table",
            section.offset,
            section.size_bytes,
            bound_bytes,
        )?;
        // Position independent programs have the start of the code filled in when they are loaded.
        let text = elf.section(".text").map_or(0, |section| section.address);
        let Some(mut table) = Self::parse(bytes, text) else {
            return Ok(None);
        };
        table.trees = table
            .read_trees(source, elf, section.address, bound_bytes)
            .unwrap_or_default();
        Ok(Some(table))
    }

    /// Only the runtime's own description of the program tells where they are. Position independent
    /// programs have it filled in when they are loaded.
    fn read_trees(
        &self,
        source: &ElfSource,
        elf: &Elf,
        own_address: u64,
        bound_bytes: u64,
    ) -> Option<Vec<u8>> {
        let gofunc = match self.version {
            Version::Go116 => return None,
            Version::Go118 => 304,
            Version::Go120 => 320,
        };
        let address = MODULE_SECTIONS.iter().find_map(|name| {
            let section = elf.section(name)?;
            let (offset, size) = (section.offset, section.size_bytes);
            let bytes = source
                .read("Go module", offset, size, MODULE_SECTION_MAX_BYTES)
                .ok()?;
            // It begins with the address of this table, then that of the names.
            let names = own_address.checked_add(self.names as u64)?;
            let module = (0..bytes.len().saturating_sub(gofunc + 8))
                .step_by(8)
                .find(|at| u64_at(&bytes, *at) == own_address && u64_at(&bytes, at + 8) == names)?;
            Some(u64_at(&bytes, module + gofunc))
        })?;
        let holder = elf.sections.iter().find(|section| {
            section.has_bytes()
                && address
                    .checked_sub(section.address)
                    .is_some_and(|skipped| section.address != 0 && skipped < section.size_bytes)
        })?;
        let skipped = address - holder.address;
        let size_bytes = (holder.size_bytes - skipped).min(bound_bytes);
        let offset = holder.offset.checked_add(skipped)?;
        source
            .read("Go inlined calls", offset, size_bytes, bound_bytes)
            .ok()
    }
}
