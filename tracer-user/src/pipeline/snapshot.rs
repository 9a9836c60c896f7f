//! A snapshot: the kernel is asked once, and nothing is attached.

use std::{panic::resume_unwind, path::PathBuf, sync::mpsc, thread};

use anyhow::Result;

use super::{judging::Judging, state::State};
use crate::{
    clock,
    decode::open_file,
    kernel::{Kernel, KernelError, Walk},
    report::{self, Report},
};

/// Pieces of a walk that wait to be taken over.
const AHEAD: usize = 4;

/// What was found, and what it was found with: taking that apart takes longer than reading it, which
/// who ends anyway need not do.
pub struct Snapshot {
    pub report: Report,
    _state: State,
    _kernel: Kernel,
}

/// Looks once, traces nothing: every watched socket with its holders.
///
/// # Errors
///
/// The kernel refused the iterators.
pub fn snapshot(ports: &[u16], btf: Option<PathBuf>) -> Result<Snapshot> {
    let mut kernel = Kernel::load_to_look(ports, btf)?;
    let mut state = State::new(Judging::default());
    // The kernel goes on while what it has found is taken over.
    let (pieces, found) = mpsc::sync_channel::<Vec<u8>>(AHEAD);
    let (taken, spare) = mpsc::channel::<Vec<u8>>();
    let kernel = thread::scope(|scope| {
        let walk = scope.spawn(move || -> Result<Kernel, KernelError> {
            kernel.walk_each(Walk::OpenFiles, |lines| {
                let mut piece = spare.try_recv().unwrap_or_default();
                piece.clear();
                piece.extend_from_slice(lines);
                // It is taken for as long as there is a sender.
                let _ = pieces.send(piece);
            })?;
            Ok(kernel)
        });
        for lines in found {
            state.take_found(open_file::files(&lines, ports));
            // Nobody needs it after the last.
            let _ = taken.send(lines);
        }
        walk.join().unwrap_or_else(|panic| resume_unwind(panic))
    })?;
    let sources = state.sources(ports, clock::boot_ns());
    Ok(Snapshot {
        report: report::build(&sources),
        _state: state,
        _kernel: kernel,
    })
}
