//! A snapshot: the kernel is asked once, and nothing is attached.

use std::{panic::resume_unwind, path::PathBuf, sync::mpsc, thread};

use anyhow::Result;

use super::{judging::Judging, state::State};
use crate::{
    clock,
    decode::open_file,
    kernel::{Kernel, Walk},
    report::{self, Report},
};

/// Pieces of a walk that wait to be taken over, of 32 KiB.
const AHEAD: usize = 16;

/// Looks once, traces nothing: every watched socket with its holders.
///
/// # Errors
///
/// The kernel refused the iterators.
pub fn snapshot(ports: &[u16], btf: Option<PathBuf>) -> Result<Report> {
    let mut kernel = Kernel::load_to_look(ports, btf)?;
    let mut state = State::new(Judging::default());
    // The kernel goes on while what it has found is taken over.
    let (pieces, found) = mpsc::sync_channel(AHEAD);
    thread::scope(|scope| {
        let walk = scope.spawn(move || {
            kernel.walk_each(Walk::OpenFiles, |lines| {
                // It is taken for as long as there is a sender.
                let _ = pieces.send(lines.to_vec());
            })
        });
        for lines in found {
            state.take_found(open_file::files(&lines, ports));
        }
        walk.join().unwrap_or_else(|panic| resume_unwind(panic))
    })?;
    let sources = state.sources(ports, clock::boot_ns());
    Ok(report::build(&sources))
}
