//! One program for all targets; `CONNLEAK_FUZZ_TARGET` says which.
#![no_main]

mod bounded;
mod panics;

use std::sync::LazyLock;

use connleak_fuzz::Target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("CONNLEAK_FUZZ_TARGET").unwrap_or_default();
    match connleak_fuzz::target(&name) {
        Some(target) => target,
        None => panic!("failed to find target {name:?}: set CONNLEAK_FUZZ_TARGET to one"),
    }
});

libfuzzer_sys::fuzz_target!(
    init: panics::sort(),
    |bytes: &[u8]| panics::caught(|| bounded::within(|| TARGET(bytes)))
);
