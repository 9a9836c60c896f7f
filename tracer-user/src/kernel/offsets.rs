//! The kernel's field offsets, resolved from its BTF.

use tracer_ebpf::abi::offsets::{Field, Offsets};

use super::{btf::KernelTypes, error::KernelError};

pub(super) fn resolve(types: &KernelTypes) -> Result<Offsets, KernelError> {
    let mut found = Vec::with_capacity(Offsets::FIELDS.len());
    for field in Offsets::FIELDS {
        let &Field { of, path } = field;
        found.push(match types.offset(of, path) {
            Some(offset) => offset,
            None if field.is_required() => return Err(KernelError::NoField { of, path }),
            None => 0,
        });
    }
    let mut found = found.into_iter();
    Offsets::from_resolved(|| found.next()).ok_or(KernelError::NoField {
        of: "sock",
        path: "__sk_common",
    })
}
