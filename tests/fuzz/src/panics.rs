//! Panics, sorted: one in our own code is a finding, one that we catch from a parser we use is not.

use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::process::abort;
use std::sync::{Mutex, PoisonError};

/// Where the compiler saw our own sources, from the root of the workspace.
const OURS: [&str; 2] = ["tracer-user/", "tests/"];

static LAST: Mutex<String> = Mutex::new(String::new());

/// Replaces libFuzzer's hook, which would end the process at any panic.
pub(crate) fn sort() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or("", |location| location.file());
        if OURS.iter().any(|ours| place.starts_with(ours)) {
            eprintln!("{panic}");
            abort();
        }
        // A hostile input has a parser panic at every run: nothing is said of it unless nobody
        // catches it.
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string();
    }));
}

/// Runs a target, and ends the process with the panic that it lets through.
pub(crate) fn caught(target: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(target)).is_err() {
        let last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        eprintln!("{last}");
        abort();
    }
}
