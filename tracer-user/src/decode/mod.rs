//! Decoding: bytes of the kernel side become owned events. The kernel's own structs end here.

pub mod event;
pub mod glimpse;
pub mod interpreter;
pub mod open_file;
pub mod recording;
pub mod socket;
mod wire;

pub use event::{DecodeError, Event};
