//! The contract between the kernel programs and userspace: every struct that crosses the border.
#![no_std]
