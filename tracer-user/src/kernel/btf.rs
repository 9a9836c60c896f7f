//! The kernel's type information (BTF), read once for offsets and features.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::HashMap,
    fs::File,
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    rc::Rc,
};

use btf_rs::{Backend, Btf, Type};
use memmap2::Mmap;
use tracer_ebpf::abi::offsets::Offsets;

use super::{btf_bytes::BtfBytes, error::KernelError};
use crate::memory;

pub(super) const SYSTEM_BTF: &str = "/sys/kernel/btf/vmlinux";

/// What is asked for besides the structs of fields.
const ACCEPT: &str = "inet_csk_accept";
const HELPERS: &str = "bpf_func_id";

/// The types of one kernel.
pub(super) struct KernelTypes {
    btf: Btf,
    /// As the kernel has it.
    bytes: Mmap,
    named: RefCell<HashMap<String, Rc<[Type]>>>,
}

impl KernelTypes {
    pub(super) fn read(path: Option<&Path>) -> Result<Self, KernelError> {
        let path = path.unwrap_or(Path::new(SYSTEM_BTF));
        let no_btf = |cause: String| KernelError::NoBtf {
            path: PathBuf::from(path),
            cause,
        };
        let copy = copy(path).map_err(|error| no_btf(error.to_string()))?;
        let btf = Btf::from_file_with_backend(
            format!("/proc/self/fd/{}", copy.as_raw_fd()),
            Backend::Mmap,
        )
        .map_err(|error| no_btf(error.to_string()))?;
        // SAFETY: nobody but this function has the file, which has no name and is not written to
        // any more.
        let bytes = unsafe { Mmap::map(&copy) }.map_err(|error| no_btf(error.to_string()))?;
        Ok(Self {
            named: wanted(&btf, &bytes).into(),
            btf,
            bytes,
        })
    }

    /// As aya is to have them: it makes values of all types, and asks for functions and tracepoints.
    pub(super) fn attachable(&self) -> Cow<'_, [u8]> {
        let attachable = BtfBytes::new(&self.bytes).and_then(|bytes| bytes.attachable());
        attachable.map_or(Cow::Borrowed(&self.bytes[..]), Cow::Owned)
    }

    fn named(&self, name: &str) -> Option<Rc<[Type]>> {
        if let Some(known) = self.named.borrow().get(name) {
            return Some(known.clone());
        }
        let found: Rc<[Type]> = self.btf.resolve_types_by_name(name).ok()?.into();
        let mut named = self.named.borrow_mut();
        named.insert(name.to_owned(), found.clone());
        Some(found)
    }

    /// Byte offset of a member, `a.b.c` from the start of struct `of`.
    pub(super) fn offset(&self, of: &str, path: &str) -> Option<u32> {
        let candidates = self.named(of)?;
        candidates
            .iter()
            .find_map(|candidate| self.member(candidate, path))
    }

    fn member(&self, of: &Type, path: &str) -> Option<u32> {
        let (Type::Struct(of) | Type::Union(of)) = of else {
            return None;
        };
        let (first, rest) = match path.split_once('.') {
            Some((first, rest)) => (first, Some(rest)),
            None => (path, None),
        };
        for member in &of.members {
            let name = self.btf.resolve_name(member).ok()?;
            let offset = member.bit_offset() / 8;
            let inner = if name.is_empty() {
                // Anonymous structs and unions lend their members to their parent.
                self.member(&self.strip(member)?, path)
            } else if name != first {
                None
            } else if let Some(rest) = rest {
                self.member(&self.strip(member)?, rest)
            } else {
                Some(0)
            };
            if let Some(inner) = inner {
                return Some(offset + inner);
            }
        }
        None
    }

    /// The member's type behind typedefs and qualifiers.
    fn strip(&self, member: &btf_rs::Member) -> Option<Type> {
        let mut of = self.btf.resolve_chained_type(member).ok()?;
        loop {
            of = match &of {
                Type::Typedef(inner) => self.btf.resolve_chained_type(inner).ok()?,
                Type::Const(inner) | Type::Volatile(inner) => {
                    self.btf.resolve_chained_type(inner).ok()?
                }
                Type::TypeTag(inner) => self.btf.resolve_chained_type(inner).ok()?,
                _ => return Some(of),
            };
        }
    }

    /// Number of arguments of `inet_csk_accept`.
    pub(super) fn accept_arguments(&self) -> Option<usize> {
        for candidate in self.named(ACCEPT)?.iter() {
            if let Type::Func(function) = candidate
                && let Ok(Type::FuncProto(proto)) = self.btf.resolve_chained_type(function)
            {
                return Some(proto.parameters.len());
            }
        }
        None
    }

    /// Does the kernel have this BPF helper (`enum bpf_func_id`)?
    pub(super) fn has_helper(&self, name: &str) -> bool {
        let wanted = format!("BPF_FUNC_{name}");
        let Some(types) = self.named(HELPERS) else {
            return false;
        };
        types.iter().any(|of| match of {
            Type::Enum(of) => of.members.iter().any(|member| {
                self.btf
                    .resolve_name(member)
                    .is_ok_and(|name| name == wanted)
            }),
            _ => false,
        })
    }
}

/// The types that will be asked for, all found in one pass. What is missing is looked for by itself.
fn wanted(btf: &Btf, bytes: &[u8]) -> HashMap<String, Rc<[Type]>> {
    let mut names: Vec<&str> = Offsets::FIELDS.iter().map(|field| field.of).collect();
    names.extend([ACCEPT, HELPERS]);
    names.sort_unstable();
    names.dedup();
    let found = BtfBytes::new(bytes).and_then(|bytes| bytes.ids(&names));
    let found = found.unwrap_or_default().into_iter();
    found
        .filter_map(|(name, ids)| {
            let types = ids.into_iter().map(|id| btf.resolve_type_by_id(id));
            let types: Vec<Type> = types.collect::<Result<_, _>>().ok()?;
            Some((name.to_owned(), types.into()))
        })
        .collect()
}

/// Its types are mapped, and older kernels (6.12 is one) let nobody map the file of sysfs.
fn copy(path: &Path) -> io::Result<File> {
    let mut copy = memory::file()?;
    io::copy(&mut File::open(path)?, &mut copy)?;
    Ok(copy)
}
