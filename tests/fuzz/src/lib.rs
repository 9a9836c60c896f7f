//! The targets: each parser of bytes that a hostile process, file or recording can hold.
//!
//! Inputs that once broke one are kept in `regressions/<target>`, and run with every test; `seeds`
//! has what the real thing looks like, where `cargo xtask fuzz` cannot make it on the spot.

use connleak::stacks::fuzz as stacks;
use connleak::{pipeline, process};

pub type Target = fn(&[u8]);

/// In the order they run.
pub const TARGETS: [(&str, Target); 12] = [
    ("elf", stacks::elf),
    ("recording", pipeline::fuzz::recording),
    ("go_table", stacks::go_table),
    ("perf_map", stacks::perf_map),
    ("python_memory", stacks::python::memory),
    ("php_memory", stacks::php_memory),
    ("ruby_memory", stacks::ruby::memory),
    ("java_memory", stacks::java::memory),
    ("node_stack", stacks::node_stack),
    ("symbols", stacks::symbols),
    ("code", stacks::code),
    ("proc", proc),
];

#[must_use]
pub fn target(name: &str) -> Option<Target> {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.map(|(_, target)| *target)
}

fn proc(bytes: &[u8]) {
    stacks::proc(bytes);
    process::fuzz::proc(bytes);
}
