//! The kernel's type information (BTF), read once for offsets and features.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use aya::{Btf, Endianness};
use memmap2::{Mmap, MmapMut, MmapOptions};
use tracer_ebpf::abi::offsets::Offsets;

use super::{
    btf_bytes::{BtfBytes, Kind, Type},
    error::KernelError,
};

const SYSTEM_BTF: &str = "/sys/kernel/btf/vmlinux";

/// What is asked for besides the structs of fields.
const ACCEPT: &str = "inet_csk_accept";
const HELPERS: &str = "bpf_func_id";

/// What iterators are attached by.
pub(super) const ITERATED: [&str; 2] = ["bpf_iter_task_file", "bpf_iter_tcp"];
/// What all programs are attached by: functions, and typedefs of tracepoints.
pub(super) const ATTACHED: [&str; 10] = [
    ITERATED[0],
    ITERATED[1],
    ACCEPT,
    "tcp_connect",
    "tcp_close",
    "btf_trace_inet_sock_set_state",
    "btf_trace_sched_process_exec",
    "btf_trace_sched_process_exit",
    "btf_trace_sched_process_fork",
    "btf_trace_tcp_destroy_sock",
];

/// More typedefs and qualifiers than any member's type stands behind.
const CHAIN_MAX: usize = 32;

/// The types of one kernel.
pub(super) struct KernelTypes<'a>(BtfBytes<'a>);

/// The bytes of the kernel's types, as [`KernelTypes`] reads them.
pub(super) fn read(path: Option<&Path>) -> Result<Mmap, KernelError> {
    let bytes = match path {
        Some(path) => copied(path),
        None => mapped().or_else(|_| copied(Path::new(SYSTEM_BTF))),
    };
    bytes.map_err(|error| no_btf(path, error.to_string()))
}

/// Since 6.16 the kernel lets it be mapped, but not shared (kernel/bpf/sysfs_btf.c,
/// `btf_sysfs_vmlinux_mmap`).
fn mapped() -> io::Result<Mmap> {
    let file = File::open(SYSTEM_BTF)?;
    // SAFETY: the kernel's own types change no more after its build.
    unsafe { MmapOptions::new().map_copy_read_only(&file) }
}

fn copied(path: &Path) -> io::Result<Mmap> {
    let mut file = File::open(path)?;
    let bytes = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut copy = MmapMut::map_anon(bytes)?;
    file.read_exact(&mut copy)?;
    copy.make_read_only()
}

fn no_btf(path: Option<&Path>, cause: String) -> KernelError {
    KernelError::NoBtf {
        path: PathBuf::from(path.unwrap_or(Path::new(SYSTEM_BTF))),
        cause,
    }
}

impl<'a> KernelTypes<'a> {
    /// `path` is where the bytes come from, if not from the kernel itself.
    pub(super) fn new(bytes: &'a [u8], path: Option<&Path>) -> Result<Self, KernelError> {
        let mut names: Vec<&str> = Offsets::FIELDS.iter().map(|field| field.of).collect();
        names.push(HELPERS);
        names.extend(ATTACHED);
        let btf = BtfBytes::new(bytes, &names);
        let cut = || no_btf(path, "it is no BTF that is known here".to_owned());
        btf.map(Self).ok_or_else(cut)
    }

    /// As aya is to have them, which makes values of all types, and asks for what programs are
    /// attached by: of `names` alone, under their IDs, and nothing else.
    pub(super) fn attachable(&self, names: &[&str]) -> Result<Btf, KernelError> {
        let bytes = self.0.only(names);
        Btf::parse(&bytes, Endianness::default()).map_err(|error| no_btf(None, error.to_string()))
    }

    /// Byte offset of a member, `a.b.c` from the start of struct `of`.
    pub(super) fn offset(&self, of: &str, path: &str) -> Option<u32> {
        self.0
            .named(of)
            .find_map(|candidate| self.member(candidate, path))
    }

    fn member(&self, of: Type<'_>, path: &str) -> Option<u32> {
        let (first, rest) = match path.split_once('.') {
            Some((first, rest)) => (first, Some(rest)),
            None => (path, None),
        };
        self.0.members(of).find_map(|member| {
            let inner = if member.name.is_empty() {
                // Anonymous structs and unions lend their members to their parent.
                self.member(self.strip(member.of)?, path)
            } else if member.name != first.as_bytes() {
                None
            } else if let Some(rest) = rest {
                self.member(self.strip(member.of)?, rest)
            } else {
                Some(0)
            };
            Some(member.bit_offset / 8 + inner?)
        })
    }

    /// The type behind typedefs and qualifiers.
    fn strip(&self, id: u32) -> Option<Type<'_>> {
        let mut of = self.0.of_id(id)?;
        for _ in 0..CHAIN_MAX {
            match of.kind {
                Kind::TYPEDEF | Kind::CONST | Kind::VOLATILE | Kind::TYPE_TAG => {
                    of = self.0.of_id(of.of)?;
                }
                _ => return Some(of),
            }
        }
        None
    }

    /// Number of arguments of `inet_csk_accept`.
    pub(super) fn accept_arguments(&self) -> Option<usize> {
        let mut named = self.0.named(ACCEPT);
        let function = named.find(|of| of.kind == Kind::FUNCTION)?;
        let prototype = self.0.of_id(function.of)?;
        (prototype.kind == Kind::PROTOTYPE).then_some(prototype.length)
    }

    /// Does the kernel have this BPF helper (`enum bpf_func_id`)?
    pub(super) fn has_helper(&self, name: &str) -> bool {
        let wanted = format!("BPF_FUNC_{name}");
        let mut values = self.0.named(HELPERS).flat_map(|of| self.0.values(of));
        values.any(|value| value == wanted.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        attach::ORDER,
        probes::{Kind as ProgramKind, Traits, candidates},
    };

    fn bytes() -> Option<Mmap> {
        read(None).ok()
    }

    #[test]
    fn everything_that_programs_are_attached_by_is_known() {
        for preempts in [false, true] {
            let traits = Traits {
                accept_arguments: Some(2),
                preempts,
                has_events: true,
            };
            let all = ORDER
                .into_iter()
                .flat_map(|hook| candidates(hook, true, traits));
            for candidate in all {
                let name = match candidate.kind {
                    ProgramKind::Fentry | ProgramKind::Fexit => candidate.target.to_owned(),
                    ProgramKind::BtfTracepoint => format!("btf_trace_{}", candidate.target),
                    _ => continue,
                };
                assert!(ATTACHED.contains(&name.as_str()), "{name}");
            }
        }
    }

    #[test]
    fn what_programs_are_attached_by_keeps_its_id() {
        let Some(bytes) = bytes() else {
            return;
        };
        let types = KernelTypes::new(&bytes, None).expect("it is BTF");
        let attached = types.0.only(&ATTACHED);
        Btf::parse(&attached, Endianness::default()).expect("aya reads it");
        let few = BtfBytes::new(&attached, &ATTACHED).expect("it is BTF");
        let ids = |btf: &BtfBytes<'_>, name| {
            let attachable = |of: &Type<'_>| matches!(of.kind, Kind::FUNCTION | Kind::TYPEDEF);
            let ids = btf.named(name).filter(attachable).map(|of| of.id);
            ids.collect::<Vec<_>>()
        };
        for name in ATTACHED {
            assert!(!ids(&few, name).is_empty(), "{name}");
            assert_eq!(ids(&few, name), ids(&types.0, name), "{name}");
        }
        let iterated = types.0.only(&ITERATED);
        assert!(iterated.len() < attached.len());
    }

    #[test]
    fn members_are_found_behind_typedefs_and_in_anonymous_structs() {
        let Some(bytes) = bytes() else {
            return;
        };
        let types = KernelTypes::new(&bytes, None).expect("it is BTF");
        assert_eq!(types.offset("sock", "__sk_common.skc_daddr"), Some(0));
        assert_eq!(types.offset("sock", "__sk_common.skc_portpair"), Some(12));
        assert_eq!(types.offset("sock", "__sk_common.no_such_member"), None);
        assert!(types.has_helper("get_current_task"));
        assert!(!types.has_helper("no_such_helper"));
        assert!(matches!(types.accept_arguments(), Some(2 | 4)));
    }
}
