//! A connect stack: the frames that were on the user stack when connect was called.
//!
//! # Layout
//! In the order of the work: `modules` (what is mapped where) over `images` and `image` (each ELF
//! file once) over `elf` (its headers, in bounds); `unwind` (registers and copy to addresses), with
//! `forward` where no table covers the code; `symbolize` (addresses to names) over `packed` (our own
//! copy of a file's symbols), `gopclntab` (Go's own table) and `demangle`, kept in `cache`; `ending` (whole, or early and why);
//! `java` unwinds and names a JVM's frames, `perfmap` other code that a process compiled itself. `resolver` wires them, `background` runs it, within its `allowance` of CPU, and keeps what comes out in `shared`. `site`, `library` and `glob` then say which frame is the user's own.
//!
//! `interpreters` finds the processes that run one and has the kernel side walk its frames; `python`
//! knows CPython, `php` PHP, `ruby` Ruby, each of which finds it by the `symbol_table` of its
//! file, says what it `looked` at and reads the target's `memory`, and what was read of code stays in `known_code`; `node` reads what a Node
//! process tells of itself. Names of such frames are read before anything slow, on the ring's
//! thread; `merge` then replaces the interpreter's own C frames, told by their module, by the frames
//! they ran. Everything a target can write (memory, ELF files, debug information) is hostile input
//! read by root: bounded, copied, never followed by name.

mod allowance;
mod background;
mod cache;
#[cfg(test)]
mod corrupt;
mod demangle;
mod elf;
mod ending;
mod forward;
#[doc(hidden)]
pub mod fuzz;
mod glob;
mod gopclntab;
#[cfg(test)]
mod hoarders;
mod image;
mod images;
mod interpreters;
mod java;
mod known_code;
mod known_files;
mod known_sites;
mod library;
mod looked;
mod memory;
mod merge;
mod modules;
mod node;
mod packed;
mod perfmap;
mod php;
mod python;
mod resolver;
mod ruby;
mod shared;
mod site;
mod symbol_table;
mod symbolize;
mod unwind;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use crate::process::ProcessKey;
pub use background::Background;
pub use interpreters::{Announcement, Caller, FrameLayout, FrameSample, FramesEnd, Root};
pub use known_sites::KnownSites;
pub use node::preload as node_preload;
pub use resolver::{Resolver, ResolverConfig};
pub use site::{FoldedFrame, Site, SiteRules};

/// The user registers at the moment of connect, as the unwinder needs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    pub ip: u64,
    pub sp: u64,
    /// Frame pointer: `rbp` on x86_64, `x29` on aarch64.
    pub fp: u64,
    /// Link register on aarch64; 0 on x86_64.
    pub lr: u64,
}

/// What the kernel side took at connect; unwound, then discarded (a stack copy holds secrets).
#[derive(Clone, Debug)]
pub struct StackSample {
    pub registers: Registers,
    /// The bytes from `registers.sp` upwards, up to the first page that could not be read.
    pub copy: Bytes,
    /// The copy ended because its size bound was reached, not because the stack ended.
    pub bounded: bool,
    /// The frames of the interpreter that ran, if there is one.
    pub interpreter: FrameSample,
}

/// Which runtime a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameKind {
    Native,
    Python,
    Php,
    Ruby,
    Java,
    Go,
    Node,
    Jit,
    Kernel,
}

/// One function of a stack. What is not known is `None`, never a made-up value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Frame {
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
    /// Path of the ELF file (or perf map) that the frame's code lies in, as the target sees it.
    pub module: Option<String>,
    pub kind: FrameKind,
    pub inlined: bool,
}

/// A resolved stack, innermost frame first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stack {
    pub frames: Vec<Frame>,
    /// Why the stack is missing or ends early: `stack ends early: <cause>`.
    pub note: Option<String>,
}

impl Frame {
    /// Of an interpreter's code, as far as it could be read.
    fn of_code(
        kind: FrameKind,
        function: Option<&str>,
        file: Option<&str>,
        line: Option<u32>,
    ) -> Self {
        Self {
            function: function.map(str::to_owned),
            file: file.map(str::to_owned),
            line,
            ..Self::unnamed(kind, None)
        }
    }

    /// Of which no more is known.
    fn unnamed(kind: FrameKind, module: Option<String>) -> Self {
        Self {
            function: None,
            file: None,
            line: None,
            module,
            kind,
            inlined: false,
        }
    }
}
