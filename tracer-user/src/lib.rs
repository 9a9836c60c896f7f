//! connleak says which process opened every TCP connection to Redis that is still open, from
//! which line of code, and whether it is a leak.
//!
//! # Layout
//!
//! Data flows one way, and a stage imports only what stands before it:
//!
//! ```text
//! kernel -> decode -> sockets -> accounting -> policy -> action
//!                        |           |            `----> report -> history, export
//!                     process     stacks
//! ```
//!
//! `kernel` is the only importer of aya; the kernel's own structs end in `decode`; `pipeline`
//! wires the stages. What stands between takes its clock, its /proc and its writer as arguments.

pub mod accounting;
pub mod action;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod decode;
pub mod export;
pub mod history;
pub mod host;
pub mod kernel;
pub mod memory;
pub mod metrics;
pub mod pipeline;
pub mod policy;
pub mod process;
pub mod procfs;
pub mod redis;
pub mod report;
pub mod sockets;
pub mod stacks;
pub mod top;
