//! connleak.

pub mod policy;
pub mod stacks;
