//! Servers, clients and ground truth that the tests share.
//!
//! The test binaries also run inside virtual machines: nothing here needs cargo at run time, and
//! every path has an environment variable (see [`place`]).

pub mod actor;
pub mod address;
pub mod child;
pub mod client;
pub mod datagram;
pub mod dial;
pub mod difference;
pub mod gate;
pub mod guest;
pub mod kernel_ids;
pub mod model;
pub mod netns;
pub mod peer;
pub mod place;
pub mod pty;
pub mod python;
pub mod report;
pub mod scene;
pub mod script;
pub mod server;
pub mod tracer;
pub mod truth;
pub mod uring;
pub mod wait;
