//! connleak.

pub mod stacks;
