//! Why the kernel side could not be loaded, attached or read, each with its remedy.

use std::{io, path::PathBuf};

use super::probes::{Family, Hook};

#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(
        "failed to load BPF programs: needs CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE; run as root"
    )]
    NotPermitted,
    #[error(
        "failed to read the kernel's type information {path}: {cause}; \
         use a kernel with CONFIG_DEBUG_INFO_BTF=y, or name a BTF file of this kernel with --btf"
    )]
    NoBtf { path: PathBuf, cause: String },
    #[error(
        "failed to find field {path} of struct {of} in the kernel's type information; \
         this kernel is not supported, please report its version"
    )]
    NoField {
        of: &'static str,
        path: &'static str,
    },
    #[error("failed to load the BPF object: {0}")]
    Object(#[from] Box<aya::EbpfError>),
    #[error(
        "failed to attach {hook} by {family}: {cause}; \
         let connleak choose with --probes auto, or see `connleak doctor`"
    )]
    Attach {
        hook: Hook,
        family: Family,
        cause: String,
    },
    #[error("failed to run iterator {name}: {cause}; needs a kernel of 5.10 or later")]
    Iterator { name: &'static str, cause: String },
    #[error("failed to enter another network namespace: needs CAP_SYS_ADMIN; run as root")]
    NamespaceNotPermitted,
    #[error("failed to attach: the kernel's types were given back already")]
    TypesReleased,
    #[error("failed to read map {name}: {cause}")]
    Map { name: &'static str, cause: String },
    #[error("failed to wait for events: {0}")]
    Wait(#[from] io::Error),
}

impl KernelError {
    pub(super) fn map(name: &'static str, cause: impl ToString) -> Self {
        Self::Map {
            name,
            cause: cause.to_string(),
        }
    }
}

/// The innermost cause, on one line: what the kernel said, without the layers above it.
pub(super) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}
