//! CPython: found in a process, walked by the kernel side, its code objects named here.
//!
//! `discover` finds the runtime in a process's maps and memory (`symbols` in its ELF file, `layout`
//! by its version, `thread_state` the slot that the walk begins at); `code` turns code objects into
//! functions over `text` and `lines`. All of it reads memory that the target may write: bounded, checked
//! by type, never believed.

mod code;
mod discover;
pub mod fuzz;
mod layout;
mod lines;
mod symbols;
mod text;
mod thread_state;

pub(super) use code::CodeReader;
pub(super) use discover::Discovery;

/// What naming the frames of one process needs to know of its CPython.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Runtime {
    version: layout::Version,
    /// Address of `PyCode_Type`.
    code_type: u64,
    /// Address of `PyUnicode_Type`.
    text_type: u64,
    members: code::CodeMembers,
}
