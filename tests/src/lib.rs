//! Servers, clients and ground truth that the tests share.

pub mod guest;
