//! The contract between the kernel programs and userspace: every struct that crosses the border.
//!
//! The programs are this package's binary target. Nothing here imports more than `core`, so both
//! sides compile the very same definitions; sizes and offsets are asserted where they are defined.
#![no_std]

pub mod abi {
    pub mod ask;
    pub mod config;
    pub mod counters;
    pub mod cpu;
    pub mod ended;
    pub mod event;
    pub mod interpreter;
    pub mod offsets;
    pub mod open_file;
    pub mod slot;
    pub mod socket;
}
