//! connleak.

pub mod action;
pub mod config;
pub mod policy;
pub mod redis;
pub mod stacks;
