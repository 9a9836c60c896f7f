//! Actions change something outside: they restart, run, cut off, and leave evidence of it first.

pub mod client_kill;
pub mod evidence;
pub mod exec;
pub mod restart;
