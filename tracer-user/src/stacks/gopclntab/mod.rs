//! Go's own table of functions and lines (pclntab), which a stripped program still carries.
//!
//! The runtime prints its tracebacks from it, so that no build can do without. All of it is the
//! target's to write: every offset is checked where it is followed, every loop has a bound. `program`
//! finds the table in a file, `values` reads what it has for each instruction.

mod program;
mod values;

use std::rc::Rc;

use super::elf::{u32_at, u64_at};
use super::symbolize::NamedFrame;

pub(super) use program::is_go;

const NAME_MAX_BYTES: usize = 1_024;
/// `PCDATA_InlTreeIndex`, internal/abi/symtab.go.
const INLINED_CALL_INDEX: u32 = 2;
/// `FUNCDATA_InlTree`.
const INLINED_CALLS: usize = 3;
const INLINED_MAX: usize = 64;
const ABSENT: u32 = u32::MAX;
/// No `fileno` of this compilation unit: internal to the linker.
const NO_FILE: u32 = u32::MAX;

/// Which Go wrote the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Go116,
    Go118,
    Go120,
}

/// The table of one program, held in memory.
#[derive(Debug)]
pub(super) struct GoTable {
    bytes: Vec<u8>,
    version: Version,
    functions: usize,
    /// What the function table's addresses count from.
    text: u64,
    names: usize,
    units: usize,
    files: usize,
    values: usize,
    table: usize,
    /// `go:func.*`, where the trees of inlined calls are; empty if it was not found.
    trees: Vec<u8>,
}

impl GoTable {
    pub(super) fn parse(bytes: Vec<u8>, text: u64) -> Option<Self> {
        let version = match u32_at(&bytes, 0) {
            0xffff_fffa => Version::Go116,
            0xffff_fff0 => Version::Go118,
            0xffff_fff1 => Version::Go120,
            _ => return None,
        };
        // Pointers of 8 bytes.
        if bytes.get(7) != Some(&8) {
            return None;
        }
        let word = |index: usize| usize::try_from(u64_at(&bytes, 8 + index * 8)).ok();
        // Since 1.18 addresses count from the start of the code, which stands before the offsets.
        let offsets = match version {
            Version::Go116 => 2,
            Version::Go118 | Version::Go120 => 3,
        };
        let text = match version {
            Version::Go116 => 0,
            _ if word(2)? != 0 => word(2)? as u64,
            _ => text,
        };
        Some(Self {
            version,
            functions: word(0)?,
            text,
            names: word(offsets)?,
            units: word(offsets + 1)?,
            files: word(offsets + 2)?,
            values: word(offsets + 3)?,
            table: word(offsets + 4)?,
            trees: Vec::new(),
            bytes,
        })
    }

    /// For fuzzing: the trees of inlined calls did not come from a file.
    pub(super) fn with_trees(self, trees: Vec<u8>) -> Self {
        Self { trees, ..self }
    }

    pub(super) fn held_bytes(&self) -> u64 {
        (self.bytes.len() + self.trees.len()) as u64
    }

    /// The functions at `address` (as the file counts), innermost first; empty if none is known.
    pub(super) fn lookup(&self, address: u64) -> Vec<NamedFrame> {
        self.named(address).unwrap_or_default()
    }

    fn named(&self, address: u64) -> Option<Vec<NamedFrame>> {
        let (entry, function) = self.function_at(address)?;
        let fields = self.fields();
        let outer = self.text(self.names, self.field(function, fields.name)? as usize)?;
        let mut frames = Vec::new();
        let mut address = address;
        for _ in 0..INLINED_MAX {
            let (file, line) = self.place(function, entry, address);
            let Some(call) = self.inlined_call(function, entry, address) else {
                frames.push(NamedFrame {
                    function: Some(outer),
                    file,
                    line,
                    inlined: false,
                });
                return Some(frames);
            };
            let parent = self.inlined_function(function, call);
            frames.push(NamedFrame {
                function: parent.as_ref().map(|(name, _)| Rc::clone(name)),
                file,
                line,
                inlined: true,
            });
            let Some((_, call_at)) = parent else {
                // Who was inlined is not known, nor where; its place must not be taken for the
                // caller's.
                frames.push(NamedFrame {
                    function: Some(outer),
                    ..NamedFrame::default()
                });
                return Some(frames);
            };
            address = entry.checked_add(u64::from(call_at))?;
        }
        None
    }

    fn field(&self, function: usize, offset: usize) -> Option<u32> {
        self.u32(function.checked_add(offset)?)
    }

    fn place(&self, function: usize, entry: u64, address: u64) -> (Option<Rc<str>>, Option<u32>) {
        let fields = self.fields();
        let value = |offset| self.value_at(self.field(function, offset)?, entry, address);
        let unit = self.field(function, fields.unit);
        let file = value(fields.file).and_then(|number| self.file(unit?, number));
        let line = value(fields.line).and_then(|line| u32::try_from(line).ok());
        (file, line.filter(|line| *line > 0))
    }

    /// Name of an inlined function, and where in the outer one it was called.
    fn inlined_function(&self, function: usize, call: u32) -> Option<(Rc<str>, u32)> {
        let fields = self.fields();
        let tables = self.field(function, fields.tables)? as usize;
        let trees = *self.bytes.get(function.checked_add(fields.end - 1)?)?;
        if usize::from(trees) <= INLINED_CALLS {
            return None;
        }
        let at = tables.checked_add(INLINED_CALLS)?.checked_mul(4)?;
        let tree = self.field(function, fields.end.checked_add(at)?)?;
        let (call_bytes, name, call_at) = match self.version {
            Version::Go116 => return None,
            Version::Go118 => (20, 12, 16),
            Version::Go120 => (16, 4, 8),
        };
        let at = (tree as usize).checked_add((call as usize).checked_mul(call_bytes)?)?;
        let raw = self.trees.get(at..at.checked_add(call_bytes)?)?;
        let function = self.text(self.names, u32_at(raw, name) as usize)?;
        (tree != ABSENT).then_some((function, u32_at(raw, call_at)))
    }

    /// Entry address and place of the function that `address` lies in.
    fn function_at(&self, address: u64) -> Option<(u64, usize)> {
        let (mut low, mut high) = (0, self.functions);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entry(middle)?.0 <= address {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let (entry, offset) = self.entry(low.checked_sub(1)?)?;
        // One more entry tells where the last function ends.
        let (end, _) = self.entry(low)?;
        (address < end).then_some((entry, self.table.checked_add(offset)?))
    }

    fn entry(&self, index: usize) -> Option<(u64, usize)> {
        match self.version {
            Version::Go116 => {
                let at = self.table.checked_add(index.checked_mul(16)?)?;
                let offset = self.u64(at.checked_add(8)?)?;
                Some((self.u64(at)?, usize::try_from(offset).ok()?))
            }
            Version::Go118 | Version::Go120 => {
                let at = self.table.checked_add(index.checked_mul(8)?)?;
                let entry = u64::from(self.u32(at)?);
                Some((
                    self.text.checked_add(entry)?,
                    self.u32(at.checked_add(4)?)? as usize,
                ))
            }
        }
    }

    /// Offsets within runtime._func.
    fn fields(&self) -> Fields {
        // 1.16 begins with a pointer, later ones with an offset of 4 bytes.
        let shift = match self.version {
            Version::Go116 => 4,
            _ => 0,
        };
        Fields {
            name: 4 + shift,
            file: 20 + shift,
            line: 24 + shift,
            tables: 28 + shift,
            unit: 32 + shift,
            end: match self.version {
                Version::Go118 => 40,
                Version::Go116 | Version::Go120 => 44,
            },
        }
    }

    /// Which inlined call `address` lies in, if in one.
    fn inlined_call(&self, function: usize, entry: u64, address: u64) -> Option<u32> {
        let fields = self.fields();
        if self.field(function, fields.tables)? <= INLINED_CALL_INDEX {
            return None;
        }
        let at = fields.end + INLINED_CALL_INDEX as usize * 4;
        let values = self.field(function, at).filter(|values| *values != 0)?;
        u32::try_from(self.value_at(values, entry, address)?).ok()
    }

    fn file(&self, unit: u32, number: i32) -> Option<Rc<str>> {
        let index = (unit as usize).checked_add(usize::try_from(number).ok()?)?;
        let offset = self.u32(self.units.checked_add(index.checked_mul(4)?)?)?;
        (offset != NO_FILE).then(|| self.text(self.files, offset as usize))?
    }

    fn text(&self, table: usize, offset: usize) -> Option<Rc<str>> {
        let bytes = self.bytes.get(table.checked_add(offset)?..)?;
        let bytes = &bytes[..bytes.len().min(NAME_MAX_BYTES)];
        let end = bytes.iter().position(|byte| *byte == 0)?;
        (end > 0).then(|| String::from_utf8_lossy(&bytes[..end]).into())
    }

    fn u32(&self, at: usize) -> Option<u32> {
        (at.checked_add(4)? <= self.bytes.len()).then(|| u32_at(&self.bytes, at))
    }

    fn u64(&self, at: usize) -> Option<u64> {
        (at.checked_add(8)? <= self.bytes.len()).then(|| u64_at(&self.bytes, at))
    }
}

struct Fields {
    name: usize,
    file: usize,
    line: usize,
    /// How many tables of values follow at `end`.
    tables: usize,
    unit: usize,
    end: usize,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A table with one function, `main.get`, at text + 0x10, of 0x20 bytes: line 7 for 4 bytes,
    /// then 9.
    fn table_of_one(version: Version) -> Vec<u8> {
        let (magic, at): (u32, usize) = match version {
            Version::Go118 => (0xffff_fff0, 72),
            _ => (0xffff_fff1, 72),
        };
        let mut parts: Vec<Vec<u8>> = vec![
            b"main.get\0".to_vec(),
            0_u32.to_le_bytes().to_vec(),
            b"/srv/orders.go\0".to_vec(),
            // From -1: file 0 throughout; line 7, then 9.
            vec![0, 2, 0x20, 0, 16, 4, 4, 0x1c, 0],
        ];
        let mut functions: Vec<u8> = Vec::new();
        for word in [0x10_u32, 16, 0x30, 0] {
            functions.extend(word.to_le_bytes());
        }
        for word in [0x10_u32, 0, 0, 0, 0, 1, 4, 0, 0, 7, 0] {
            functions.extend(word.to_le_bytes());
        }
        parts.push(functions);
        let mut bytes = magic.to_le_bytes().to_vec();
        bytes.extend([0, 0, 1, 8]);
        for word in [1_u64, 1, 0x40_0000] {
            bytes.extend(word.to_le_bytes());
        }
        let mut place = at;
        for part in &parts {
            bytes.extend((place as u64).to_le_bytes());
            place += part.len();
        }
        bytes.extend(parts.concat());
        bytes
    }

    #[test]
    fn functions_files_and_lines_are_found() {
        let table = GoTable::parse(table_of_one(Version::Go120), 0).expect("a table");
        let found = |address| table.lookup(address).into_iter().next();
        let frame = found(0x40_0010).expect("a function");
        assert_eq!(frame.function.as_deref(), Some("main.get"));
        assert_eq!(frame.file.as_deref(), Some("/srv/orders.go"));
        assert_eq!(frame.line, Some(7));
        assert_eq!(found(0x40_0014).and_then(|frame| frame.line), Some(9));
        assert_eq!(found(0x40_000f), None);
        assert_eq!(found(0x40_0030), None);
    }

    #[test]
    fn a_position_independent_program_counts_from_its_text() {
        let mut bytes = table_of_one(Version::Go118);
        bytes[24..32].fill(0);
        let table = GoTable::parse(bytes, 0x1000).expect("a table");
        assert_eq!(table.lookup(0x1010).len(), 1);
    }

    proptest! {
        #[test]
        fn any_table_has_an_answer(
            magic in prop::sample::select(vec![0xfa_u8, 0xf0, 0xf1]),
            mut bytes in prop::collection::vec(any::<u8>(), 0..400),
            address: u64,
        ) {
            let head = [magic, 0xff, 0xff, 0xff, 0, 0, 1, 8];
            for (to, from) in bytes.iter_mut().zip(head) {
                *to = from;
            }
            if let Some(table) = GoTable::parse(bytes, 0) {
                let _ = table.lookup(address);
            }
        }

        #[test]
        fn a_damaged_table_has_an_answer(at in 0_usize..200, value: u8, address in 0x40_0000_u64..0x40_0040) {
            let mut bytes = table_of_one(Version::Go120);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            if let Some(table) = GoTable::parse(bytes, 0) {
                let _ = table.lookup(address);
            }
        }
    }
}
