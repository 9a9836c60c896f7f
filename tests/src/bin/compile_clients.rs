//! Compiles and copies the clients that are not Rust into the folder given: for virtual machines.

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let dir = std::env::args_os()
        .nth(1)
        .context("usage: compile_clients FOLDER")?;
    connleak_tests::client::compile_all(dir.as_ref())
}
