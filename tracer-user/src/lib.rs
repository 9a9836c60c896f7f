//! connleak.

pub mod stacks;
pub mod kernel;
pub mod decode;
pub mod process;
pub mod sockets;
