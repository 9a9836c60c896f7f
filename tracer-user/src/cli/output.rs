//! The output: data to stdout, words to stderr, colour where people look.

use std::{
    env,
    io::{self, BufWriter, IsTerminal, Write},
    iter,
};

use anyhow::{Context, Result};

use crate::report::Style;

/// As much as a pipe takes at once (pipe(7)).
const BUFFER_BYTES: usize = 64 * 1024;

/// Writes it to stdout.
///
/// # Errors
///
/// stdout is full or closed.
pub(super) fn print(data: &(impl AsRef<[u8]> + ?Sized)) -> Result<()> {
    print_pieces(iter::once(data))
}

/// Writes one piece after the other to stdout, while the next are made.
///
/// # Errors
///
/// As [`print`].
pub(super) fn print_pieces(pieces: impl Iterator<Item = impl AsRef<[u8]>>) -> Result<()> {
    let mut stdout = BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock());
    let write = || -> io::Result<()> {
        for piece in pieces {
            stdout.write_all(piece.as_ref())?;
        }
        stdout.flush()
    };
    write().context("failed to write to stdout; direct it to a place that takes the report")
}

/// One line on stderr.
pub(super) fn complain(message: &str) {
    // Where stderr is closed too there is nobody to tell.
    let _ = writeln!(io::stderr(), "connleak: {message}");
}

/// One line on stderr, of progress.
pub(super) fn say(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

/// The reader went away: it has what it wanted.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// How tables look on this stdout.
pub(super) fn style(sockets: bool) -> Style {
    style_on(io::stdout().is_terminal(), sockets)
}

/// How tables look on a terminal, or elsewhere.
pub(super) fn style_on(terminal: bool, sockets: bool) -> Style {
    let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || env::var_os("TERM").is_some_and(|term| term == "dumb");
    Style {
        color: terminal && !plain,
        width: if terminal {
            terminal_size().map_or(usize::MAX, |(columns, _)| columns)
        } else {
            usize::MAX
        },
        sockets,
    }
}

/// (columns, rows) of the terminal on stdout.
pub(super) fn terminal_size() -> Option<(usize, usize)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one winsize, which `size` is.
    let failed = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (failed == 0 && size.ws_col > 0).then(|| (usize::from(size.ws_col), usize::from(size.ws_row)))
}
