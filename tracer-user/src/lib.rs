//! connleak.

pub mod accounting;
pub mod cli;
pub mod clock;
pub mod decode;
pub mod host;
pub mod kernel;
pub mod pipeline;
pub mod process;
pub mod report;
pub mod sockets;
pub mod stacks;
