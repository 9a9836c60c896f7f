//! A snapshot: the kernel is asked once, and nothing is attached.

use std::path::PathBuf;

use anyhow::Result;

use super::{judging::Judging, state::State};
use crate::{
    clock,
    decode::{open_file::OpenFiles, socket::Socket},
    kernel::{Kernel, Walk},
    report::{self, Report},
};

/// Looks once, traces nothing: every watched socket with its holders.
///
/// # Errors
///
/// The kernel refused the iterators.
pub fn snapshot(ports: &[u16], btf: Option<PathBuf>) -> Result<Report> {
    let mut kernel = Kernel::load_to_look(ports, btf)?;
    let open_files = OpenFiles::new(kernel.walk(Walk::OpenFiles)?)?;
    let mut state = State::new(Judging::default());
    for file in open_files.files(ports) {
        if let Some(socket) = Socket::from_open_file(&file) {
            state.table.change(&socket);
        }
    }
    state.take_open_files(open_files.files(ports));
    let sources = state.sources(ports, clock::boot_ns());
    Ok(report::build(&sources))
}
