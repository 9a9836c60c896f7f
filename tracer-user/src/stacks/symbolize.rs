//! The names of one ELF file: functions, inlined ones too, with file and line.

use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;

use blazesym::symbolize::source::{self, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolizer};

use super::demangle::{demangle, is_nested};
use super::elf::{Elf, ElfError, ElfSource};
use super::gopclntab::GoTable;
use super::images::open_regular;
use super::packed::{PackBounds, PackedElf};

const FILE_NAME_MAX_BYTES: usize = 1_024;
const INLINED_MAX: usize = 64;

/// One function at an address. Several if some are inlined into others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NamedFrame {
    pub(super) function: Option<Rc<str>>,
    pub(super) file: Option<Rc<str>>,
    pub(super) line: Option<u32>,
    pub(super) inlined: bool,
}

/// Where names may come from, and how much memory they may take.
#[derive(Clone, Debug)]
pub(super) struct NameSources {
    pub(super) debug: bool,
    /// Directories with `.build-id/`, owned by root: the only other files that are opened.
    pub(super) debug_dirs: Vec<PathBuf>,
    pub(super) bounds: PackBounds,
}

pub(super) struct Names {
    symbolizer: Symbolizer,
    /// Asked in turn; a separate debug file stands first.
    copies: Vec<PackedElf>,
    /// A Go program's own table: lines where it was stripped of all else.
    go: Option<GoTable>,
    pub(super) bytes: u64,
}

impl Names {
    pub(super) fn build(
        source: &ElfSource,
        elf: &Elf,
        sources: &NameSources,
        wants_lines: bool,
    ) -> Result<Self, ElfError> {
        let mut copies = Vec::new();
        let own = PackedElf::build(source, elf, sources.debug, sources.bounds)?;
        let own_debug = own.as_ref().is_some_and(|copy| copy.has_debug);
        if sources.debug && !own_debug {
            copies.extend(separate_debug_file(source, elf, sources, wants_lines));
        }
        copies.extend(own);
        let symbolizer = Symbolizer::builder()
            .enable_auto_reload(false)
            .enable_demangling(false)
            .set_debug_dirs(Some(Vec::<PathBuf>::new()))
            .build();
        let go = GoTable::read(source, elf, sources.bounds.section_bytes).unwrap_or_default();
        let bytes = copies.iter().map(|copy| copy.bytes).sum::<u64>()
            + go.as_ref().map_or(0, GoTable::held_bytes);
        Ok(Self {
            symbolizer,
            copies,
            go,
            bytes,
        })
    }

    /// The functions at `address` (as the file counts), innermost first; empty if none is known.
    pub(super) fn lookup(&self, address: u64) -> Result<Vec<NamedFrame>, ElfError> {
        // Corrupt debug information is the target's to write; a panic in its parser is a missing
        // name, not our end.
        let frames = catch_unwind(AssertUnwindSafe(|| self.lookup_unguarded(address)))
            .map_err(|_| ElfError::Names("its debug information is corrupt".to_owned()))?;
        if let Some(go) = &self.go
            && frames.iter().all(|frame| frame.line.is_none())
        {
            let own = go.lookup(address);
            if !own.is_empty() {
                return Ok(own);
            }
        }
        Ok(frames)
    }

    fn lookup_unguarded(&self, address: u64) -> Vec<NamedFrame> {
        for copy in &self.copies {
            for debug in [true, false] {
                if debug && !copy.has_debug {
                    continue;
                }
                match self.symbolized(copy, address, debug) {
                    Ok(frames) if frames.is_empty() => break,
                    Ok(mut frames) => {
                        if debug {
                            self.name_outermost(copy, address, &mut frames);
                        }
                        return frames;
                    }
                    // Damaged debug information: the symbols may still be whole.
                    Err(_) => continue,
                }
            }
        }
        Vec::new()
    }

    fn symbolized(
        &self,
        copy: &PackedElf,
        address: u64,
        debug: bool,
    ) -> blazesym::Result<Vec<NamedFrame>> {
        let mut elf = source::Elf::new(copy.path());
        elf.debug_syms = debug;
        let answer = self
            .symbolizer
            .symbolize_single(&Source::Elf(elf), Input::VirtOffset(address))?;
        let symbol = answer.into_sym().filter(|symbol| !symbol.name.is_empty());
        Ok(symbol.map(|symbol| frames(&symbol)).unwrap_or_default())
    }

    /// Line tables have no scopes: an async function's body is `{async_fn#0}` and no more. What was
    /// not inlined has its full name in the symbols.
    fn name_outermost(&self, copy: &PackedElf, address: u64, frames: &mut [NamedFrame]) {
        let Some(outermost) = frames.last_mut() else {
            return;
        };
        if outermost.function.as_deref().is_some_and(is_nested)
            && let Ok(symbols) = self.symbolized(copy, address, false)
            && let [
                NamedFrame {
                    function: Some(name),
                    ..
                },
            ] = symbols.as_slice()
        {
            outermost.function = Some(Rc::clone(name));
        }
    }
}

/// Without lines it still has the symbols that were stripped from the file itself.
fn separate_debug_file(
    source: &ElfSource,
    elf: &Elf,
    sources: &NameSources,
    wants_lines: bool,
) -> Option<PackedElf> {
    let id = elf.build_id(source)?;
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = format!(".build-id/{}/{}.debug", &hex[..2], &hex[2..]);
    sources.debug_dirs.iter().find_map(|dir| {
        let file = open_regular(&dir.join(&name)).ok()?;
        let source = ElfSource::from_file(file).ok()?;
        let elf = Elf::parse(&source).ok()?;
        PackedElf::build(&source, &elf, wants_lines, sources.bounds).ok()?
    })
}

fn frames(symbol: &Sym<'_>) -> Vec<NamedFrame> {
    let outer = frame(&symbol.name, symbol.code_info.as_deref(), false);
    let inlined = symbol.inlined.iter().rev().take(INLINED_MAX);
    let mut frames: Vec<NamedFrame> = inlined
        .map(|inlined| frame(&inlined.name, inlined.code_info.as_ref(), true))
        .collect();
    frames.push(outer);
    frames
}

fn frame(name: &str, code: Option<&CodeInfo<'_>>, inlined: bool) -> NamedFrame {
    let file = code.and_then(|code| {
        let path = code.to_path();
        let bytes = path.as_os_str().as_bytes();
        let bytes = &bytes[..bytes.len().min(FILE_NAME_MAX_BYTES)];
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into())
    });
    NamedFrame {
        function: (!name.is_empty()).then(|| demangle(name).into()),
        line: code.and_then(|code| code.line).filter(|line| *line > 0),
        file,
        inlined,
    }
}
