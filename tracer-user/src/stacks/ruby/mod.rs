//! Ruby: found in a process, its control frames walked by the kernel side, their code named here.
//!
//! `discover` finds the library in a process's maps, `layout` has its version's offsets, `machine` the
//! virtual machine in its memory and the slot that the walk begins at; `code` turns instruction
//! sequences into methods over `text` and `lines`. Methods written in C have no instruction sequence:
//! such frames are left out. All of it reads memory that the target may write: bounded, checked by
//! type, never believed.

mod code;
mod discover;
pub mod fuzz;
mod layout;
mod lines;
mod machine;
mod text;

pub(super) use code::CodeReader;
pub(super) use discover::Discovery;

/// What naming the frames of one process needs to know of its Ruby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Runtime {
    layout: layout::Layout,
}
