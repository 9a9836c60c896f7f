//! Java: HotSpot's frames, read from the stack copy and from what the JVM says of itself.
//!
//! `tables` reads how libjvm.so describes its structs, `layout` what of it is needed; `code_cache`
//! leads from an address to the code it is in, `activation` from there to the caller; `nmethod`,
//! `scopes` and `method` then name what ran, over `pool`, `lines` and `unsigned5`; `walker` has
//! `calls` tell whether caller and callee belong together, and `walk_memory` how much is read. Where
//! a JVM cannot be read this way, `perf_map_request` has it write down what it compiled. All of it
//! reads memory that the target may write: bounded, checked where two things must agree, never
//! believed.

mod activation;
mod calls;
mod code_cache;
mod frames;
pub mod fuzz;
mod layout;
mod lines;
mod machine;
mod method;
mod nmethod;
mod perf_map_request;
mod pool;
#[cfg(test)]
mod scene;
#[cfg(test)]
mod scene_tests;
mod scopes;
mod tables;
mod unsigned5;
mod walk_memory;
mod walker;

pub(super) use activation::Returned;
pub(super) use machine::{Discovery, Jvm};
pub(super) use method::MethodReader;
pub(super) use perf_map_request::write_perf_map;
pub(super) use walk_memory::WALK_MAX_BYTES;
pub(super) use walker::{Walked, Walker};
