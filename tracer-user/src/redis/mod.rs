//! What Redis itself says: whether it answers, how fast, and whom it counts as its clients.

pub mod clients;
pub mod connection;
pub mod endpoint;
pub mod health;
pub mod info;
pub mod latency;
#[cfg(test)]
pub(crate) mod live;
pub mod probe;
mod secret;
mod sentinel;
pub mod stream;
mod tls;
