//! The kernel's type information as it lies in memory (Documentation/bpf/btf.rst), passed over once.
//!
//! There are some 150,000 types, and a dozen are asked for: they are found by name where they lie,
//! and whoever must make values of all of them is given the others as nothing.

use std::collections::HashMap;

// `struct btf_header`: where its fields lie.
const VERSION: usize = 2;
const HEADER_BYTES: usize = 4;
const TYPES_AT: usize = 8;
const TYPES_BYTES: usize = 12;
const NAMES_AT: usize = 16;
const NAMES_BYTES: usize = 20;
const HEADER_END: usize = 24;

const MAGIC: u16 = 0xeb9f;
/// `struct btf_type`: name_off, info, and size or type.
const TYPE_BYTES: usize = 12;

/// `BTF_KIND_*` (include/uapi/linux/btf.h)
const FORWARD: u32 = 7;
const TYPEDEF: u32 = 8;
const FUNCTION: u32 = 12;

/// What stands behind a type's first 12 bytes; `None` of a kind that is not known here.
fn more_bytes(kind: u32, members: usize) -> Option<usize> {
    Some(match kind {
        // Pointers, forwards, typedefs, qualifiers, functions, floats, type tags.
        2 | FORWARD..=FUNCTION | 16 | 18 => 0,
        // Integers, variables, declaration tags.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Structs, unions, data sections, enums of 64 bits.
        4 | 5 | 15 | 19 => 12 * members,
        // Enums, function prototypes.
        6 | 13 => 8 * members,
        _ => return None,
    })
}

/// Types of this machine's byte order.
pub(super) struct BtfBytes<'a> {
    whole: &'a [u8],
    types: &'a [u8],
    names: &'a [u8],
}

#[derive(Clone, Copy)]
struct At<'a> {
    id: u32,
    kind: u32,
    /// Up to the end of all names.
    name: &'a [u8],
    first: &'a [u8],
}

impl<'a> BtfBytes<'a> {
    /// `None` where it is no BTF of version 1, or is cut short.
    pub(super) fn new(whole: &'a [u8]) -> Option<Self> {
        let word = |at: usize| {
            let bytes = whole.get(at..at + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().ok()?) as usize)
        };
        let magic = u16::from_ne_bytes(*whole.first_chunk()?);
        if magic != MAGIC || *whole.get(VERSION)? != 1 {
            return None;
        }
        let start = word(HEADER_BYTES)?;
        let section = |at: usize, bytes: usize| {
            let at = start.checked_add(word(at)?)?;
            whole.get(at..at.checked_add(word(bytes)?)?)
        };
        Some(Self {
            whole,
            types: section(TYPES_AT, TYPES_BYTES)?,
            names: section(NAMES_AT, NAMES_BYTES)?,
        })
    }

    /// Hands over every type in turn. `None` where they are cut short, or of an unknown kind.
    fn each(&self, mut see: impl FnMut(At<'a>)) -> Option<()> {
        let mut rest = self.types;
        let mut id = 0;
        while !rest.is_empty() {
            let first = rest.get(..TYPE_BYTES)?;
            let word = |at: usize| Some(u32::from_ne_bytes(*first.get(at..)?.first_chunk()?));
            let info = word(4)?;
            let kind = (info >> 24) & 0x1f;
            id += 1;
            see(At {
                id,
                kind,
                name: self.names.get(word(0)? as usize..)?,
                first,
            });
            let bytes = TYPE_BYTES + more_bytes(kind, (info & 0xffff) as usize)?;
            rest = rest.get(bytes..)?;
        }
        Some(())
    }

    /// The IDs of all types of these names.
    pub(super) fn ids<'n>(&self, names: &[&'n str]) -> Option<HashMap<&'n str, Vec<u32>>> {
        let mut found: HashMap<&str, Vec<u32>> =
            names.iter().map(|&name| (name, Vec::new())).collect();
        self.each(|at| {
            let is_it = |name: &&&str| {
                let name = name.as_bytes();
                // Nearly all of them differ there.
                at.name.first() == name.first()
                    && at.name.starts_with(name)
                    && at.name.get(name.len()) == Some(&0)
            };
            if let Some(ids) = names.iter().find(is_it).and_then(|&it| found.get_mut(it)) {
                ids.push(at.id);
            }
        })?;
        Some(found)
    }

    /// The same, with what programs are attached by: functions and typedefs, under their names and
    /// IDs. All else is a forward declaration of nothing.
    pub(super) fn attachable(&self) -> Option<Vec<u8>> {
        let mut types = Vec::with_capacity(self.types.len());
        self.each(|at| match at.kind {
            FUNCTION | TYPEDEF => types.extend_from_slice(at.first),
            _ => {
                types.extend_from_slice(&[0; 4]);
                types.extend_from_slice(&(FORWARD << 24).to_ne_bytes());
                types.extend_from_slice(&[0; 4]);
            }
        })?;
        let word = |bytes: usize| u32::try_from(bytes).ok();
        let sections = [
            word(HEADER_END)?,
            0,
            word(types.len())?,
            word(types.len())?,
            word(self.names.len())?,
        ];
        let mut bytes = Vec::with_capacity(HEADER_END + types.len() + self.names.len());
        bytes.extend_from_slice(self.whole.get(..HEADER_BYTES)?);
        bytes.extend(sections.into_iter().flat_map(u32::to_ne_bytes));
        bytes.extend(types);
        bytes.extend_from_slice(self.names);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use aya::{Btf, Endianness};

    use super::*;

    fn kernel() -> Option<Vec<u8>> {
        std::fs::read("/sys/kernel/btf/vmlinux").ok()
    }

    #[test]
    fn what_programs_are_attached_by_keeps_its_name_and_id() {
        let Some(bytes) = kernel() else {
            return;
        };
        let names = [
            "bpf_iter_task_file",
            "tcp_close",
            "btf_trace_inet_sock_set_state",
            "tcp_sock",
        ];
        let ids = |bytes: &[u8]| BtfBytes::new(bytes).and_then(|it| it.ids(&names));
        let attachable = BtfBytes::new(&bytes).and_then(|it| it.attachable());
        let attachable = attachable.expect("it is BTF");
        let (all, few) = (ids(&bytes).expect("BTF"), ids(&attachable).expect("BTF"));
        for name in &names[..3] {
            assert_eq!(few[name], all[name], "{name}");
            assert!(!few[name].is_empty(), "{name}");
        }
        // No program is attached by a struct.
        assert!(few["tcp_sock"].is_empty());
        assert!(attachable.len() < bytes.len());
        Btf::parse(&attachable, Endianness::default()).expect("aya reads it");
    }

    #[test]
    fn names_are_found_whole_and_as_often_as_they_are() {
        let Some(bytes) = kernel() else {
            return;
        };
        let names = ["sock", "tcp_sock", "no_such_type"];
        let found = BtfBytes::new(&bytes).and_then(|it| it.ids(&names));
        let found = found.expect("it is BTF");
        assert!(!found["sock"].is_empty() && !found["tcp_sock"].is_empty());
        assert!(found["no_such_type"].is_empty());
        assert_ne!(found["sock"], found["tcp_sock"]);
    }

    #[test]
    fn cut_bytes_are_refused() {
        let Some(bytes) = kernel() else {
            return;
        };
        for length in [0, 1, 23, 24, 1000, bytes.len() - 1] {
            let cut = BtfBytes::new(&bytes[..length]);
            assert!(cut.is_none_or(|cut| cut.attachable().is_none()), "{length}");
        }
    }
}
