//! The kernel's field offsets, resolved from its BTF.

use tracer_ebpf::abi::offsets::{Field, Offsets};

use super::{btf::KernelTypes, error::KernelError};

pub(super) fn resolve(types: &KernelTypes) -> Result<Offsets, KernelError> {
    let mut found = Vec::with_capacity(Offsets::FIELDS.len());
    for &Field { of, path } in Offsets::FIELDS {
        found.push(
            types
                .offset(of, path)
                .ok_or(KernelError::NoField { of, path })?,
        );
    }
    let mut found = found.into_iter();
    Offsets::from_resolved(|| found.next()).ok_or(KernelError::NoField {
        of: "sock",
        path: "__sk_common",
    })
}
