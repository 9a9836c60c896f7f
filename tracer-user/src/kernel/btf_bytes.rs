//! Type information as it lies in memory (Documentation/bpf/btf.rst), passed over once.
//!
//! A kernel has some 150,000 types, and a dozen are asked for: they are found by name and read where
//! they lie, without a value made of each.

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
const VERSION_1: u8 = 1;
/// `struct btf_type`: name_off, info, and size or type.
const TYPE_BYTES: usize = 12;
/// `struct btf_member`: name_off, type, offset.
const MEMBER_BYTES: usize = 12;
/// `struct btf_enum`: name_off, val.
const VALUE_BYTES: usize = 8;

/// `BTF_KIND_*` (include/uapi/linux/btf.h)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind(u32);

impl Kind {
    pub(super) const STRUCT: Self = Self(4);
    pub(super) const UNION: Self = Self(5);
    pub(super) const ENUM: Self = Self(6);
    const FORWARD: Self = Self(7);
    pub(super) const TYPEDEF: Self = Self(8);
    pub(super) const VOLATILE: Self = Self(9);
    pub(super) const CONST: Self = Self(10);
    pub(super) const FUNCTION: Self = Self(12);
    pub(super) const PROTOTYPE: Self = Self(13);
    pub(super) const TYPE_TAG: Self = Self(18);

    /// What stands behind a type's first 12 bytes; `None` of a kind that is not known here.
    fn more_bytes(self, members: usize) -> Option<usize> {
        Some(match self.0 {
            // Pointers, forwards, typedefs, qualifiers, functions, floats, type tags.
            2 | 7..=12 | 16 | 18 => 0,
            // Integers, variables, declaration tags.
            1 | 14 | 17 => 4,
            // Arrays.
            3 => 12,
            // Structs, unions, data sections, enums of 64 bits.
            4 | 5 | 15 | 19 => MEMBER_BYTES * members,
            // Enums, function prototypes.
            6 | 13 => VALUE_BYTES * members,
            _ => return None,
        })
    }
}

/// Types of this machine's byte order.
pub(super) struct BtfBytes<'a> {
    types: &'a [u8],
    names: &'a [u8],
    /// Where the type of each ID begins; IDs begin with 1.
    starts: Vec<u32>,
    /// The IDs of the types that were asked for, in ascending order.
    named: HashMap<&'static str, Vec<u32>>,
}

/// One type.
#[derive(Clone, Copy)]
pub(super) struct Type<'a> {
    pub(super) id: u32,
    pub(super) kind: Kind,
    /// Members, values or parameters.
    pub(super) length: usize,
    /// Of a struct or union: its offsets have a bit field's size beside them.
    has_bit_fields: bool,
    name: u32,
    /// The ID of the type that it names, qualifies or is declared with.
    pub(super) of: u32,
    /// Its members or values.
    more: &'a [u8],
}

/// A member of a struct or union.
pub(super) struct Member<'a> {
    /// Empty where it lends its own members to its parent.
    pub(super) name: &'a [u8],
    pub(super) of: u32,
    pub(super) bit_offset: u32,
}

impl<'a> BtfBytes<'a> {
    /// Finds all types of these names. `None` where it is no BTF of version 1, is cut short, or has
    /// a type of an unknown kind.
    pub(super) fn new(whole: &'a [u8], names: &[&'static str]) -> Option<Self> {
        let magic = u16::from_ne_bytes(*whole.first_chunk()?);
        if magic != MAGIC || *whole.get(VERSION)? != VERSION_1 {
            return None;
        }
        let start = word(whole, HEADER_BYTES)? as usize;
        let section = |at: usize, bytes: usize| {
            let at = start.checked_add(word(whole, at)? as usize)?;
            whole.get(at..at.checked_add(word(whole, bytes)? as usize)?)
        };
        let mut btf = Self {
            types: section(TYPES_AT, TYPES_BYTES)?,
            names: section(NAMES_AT, NAMES_BYTES)?,
            starts: Vec::new(),
            named: names.iter().map(|&name| (name, Vec::new())).collect(),
        };
        btf.pass_over()?;
        Some(btf)
    }

    fn pass_over(&mut self) -> Option<()> {
        // Nearly all names differ there.
        let mut initials = [false; 256];
        for name in self.named.keys() {
            initials[usize::from(*name.as_bytes().first()?)] = true;
        }
        // Most take no more.
        self.starts.reserve(self.types.len() / (2 * TYPE_BYTES));
        let mut at = 0;
        while at < self.types.len() {
            self.starts.push(u32::try_from(at).ok()?);
            let of = self.at(self.starts.len() as u32, at)?;
            at += TYPE_BYTES + of.more.len();
            let initial = *self.names.get(of.name as usize)?;
            if initials[usize::from(initial)]
                && let Ok(name) = str::from_utf8(self.name(of.name))
                && let Some(ids) = self.named.get_mut(name)
            {
                ids.push(of.id);
            }
        }
        Some(())
    }

    fn at(&self, id: u32, at: usize) -> Option<Type<'a>> {
        let rest = self.types.get(at..)?;
        let (first, rest) = rest.split_at_checked(TYPE_BYTES)?;
        let info = word(first, 4)?;
        let kind = Kind((info >> 24) & 0x1f);
        let length = (info & 0xffff) as usize;
        Some(Type {
            id,
            kind,
            length,
            has_bit_fields: info >> 31 != 0,
            name: word(first, 0)?,
            of: word(first, 8)?,
            more: rest.get(..kind.more_bytes(length)?)?,
        })
    }

    /// Up to its NUL.
    fn name(&self, at: u32) -> &'a [u8] {
        let from = self.names.get(at as usize..).unwrap_or_default();
        from.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// BTF with the functions and typedefs of `names` alone, of those that were asked for, under
    /// their IDs: what comes between them is a forward declaration of nothing.
    pub(super) fn only(&self, names: &[&str]) -> Vec<u8> {
        let of_name = |&name: &&str| self.named(name);
        let mut kept: Vec<Type<'_>> = names.iter().flat_map(of_name).collect();
        kept.retain(|of| of.kind == Kind::FUNCTION || of.kind == Kind::TYPEDEF);
        kept.sort_by_key(|of| of.id);
        let last = kept.last().map_or(0, |of| of.id as usize);
        let nothing = [0, Kind::FORWARD.0 << 24, 0].map(u32::to_ne_bytes).concat();
        let mut types = nothing.repeat(last);
        let mut strings = vec![0];
        for of in kept {
            let name_at = strings.len() as u32;
            strings.extend_from_slice(self.name(of.name));
            strings.push(0);
            let first = [name_at, of.kind.0 << 24, 0].map(u32::to_ne_bytes).concat();
            let start = (of.id as usize - 1) * TYPE_BYTES;
            types[start..start + TYPE_BYTES].copy_from_slice(&first);
        }
        let (types_bytes, names_bytes) = (types.len() as u32, strings.len() as u32);
        let header_bytes = HEADER_END as u32;
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([VERSION_1, 0]);
        let sections = [header_bytes, 0, types_bytes, types_bytes, names_bytes];
        bytes.extend(sections.into_iter().flat_map(u32::to_ne_bytes));
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    pub(super) fn of_id(&self, id: u32) -> Option<Type<'a>> {
        let start = *self.starts.get((id as usize).checked_sub(1)?)?;
        self.at(id, start as usize)
    }

    /// All types of a name that was asked for, in the order of their IDs.
    pub(super) fn named<'s>(&'s self, name: &str) -> impl Iterator<Item = Type<'a>> + use<'a, 's> {
        let ids = self.named.get(name).into_iter().flatten();
        ids.filter_map(|&id| self.of_id(id))
    }

    /// The members of a struct or union.
    pub(super) fn members(&self, of: Type<'a>) -> impl Iterator<Item = Member<'a>> {
        let is_it = of.kind == Kind::STRUCT || of.kind == Kind::UNION;
        let members = of.more.chunks_exact(MEMBER_BYTES).filter(move |_| is_it);
        members.filter_map(move |member| {
            let offset = word(member, 8)?;
            Some(Member {
                name: self.name(word(member, 0)?),
                of: word(member, 4)?,
                bit_offset: if of.has_bit_fields {
                    offset & 0x00ff_ffff
                } else {
                    offset
                },
            })
        })
    }

    /// The names of an enum's values.
    pub(super) fn values(&self, of: Type<'a>) -> impl Iterator<Item = &'a [u8]> {
        let is_it = of.kind == Kind::ENUM;
        let values = of.more.chunks_exact(VALUE_BYTES).filter(move |_| is_it);
        values.filter_map(|value| Some(self.name(word(value, 0)?)))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel() -> Option<Vec<u8>> {
        std::fs::read("/sys/kernel/btf/vmlinux").ok()
    }

    #[test]
    fn names_are_found_whole_and_as_often_as_they_are() {
        let Some(bytes) = kernel() else {
            return;
        };
        let btf = BtfBytes::new(&bytes, &["sock", "tcp_sock", "no_such_type"]);
        let btf = btf.expect("it is BTF");
        let struct_of = |name| btf.named(name).find(|of| of.kind == Kind::STRUCT);
        let (sock, tcp_sock) = (struct_of("sock"), struct_of("tcp_sock"));
        let (sock, tcp_sock) = (sock.expect("a struct"), tcp_sock.expect("a struct"));
        assert_eq!(btf.name(sock.name), b"sock");
        assert_ne!(sock.id, tcp_sock.id);
        assert_eq!(btf.members(sock).count(), sock.length);
        let first = btf.members(tcp_sock).next().expect("a member");
        assert_eq!((first.name, first.bit_offset), (&b"inet_conn"[..], 0));
        assert_eq!(btf.named("no_such_type").count(), 0);
    }

    #[test]
    fn cut_bytes_are_refused() {
        let Some(bytes) = kernel() else {
            return;
        };
        for length in [0, 1, 23, 24, 1000, bytes.len() - 1] {
            assert!(
                BtfBytes::new(&bytes[..length], &["sock"]).is_none(),
                "{length}"
            );
        }
    }
}
