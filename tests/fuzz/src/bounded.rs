//! An allocator that counts: an input for which a parser asks for more than the bound has found one.
//!
//! libFuzzer's own bound is on resident memory, which a buffer that nobody writes to never passes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::abort;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What is held for one input at once. The largest that connleak means to hold of one ELF file's
/// names is `image_names_bytes`, 192 MiB.
const HELD_MAX_BYTES: usize = 256 << 20;

#[global_allocator]
static COUNTED: Counted = Counted;

static HELD_BYTES: AtomicUsize = AtomicUsize::new(0);
/// What was held before the input, `usize::MAX` between inputs.
static HELD_BEFORE: AtomicUsize = AtomicUsize::new(usize::MAX);

struct Counted;

/// Runs a target on one input, and has the process abort where it holds too much.
pub(crate) fn within(target: impl FnOnce()) {
    HELD_BEFORE.store(HELD_BYTES.load(Relaxed), Relaxed);
    target();
    HELD_BEFORE.store(usize::MAX, Relaxed);
}

/// Counts `bytes` more, if they are still within the bound.
fn take(bytes: usize) {
    let held = HELD_BYTES.fetch_add(bytes, Relaxed).wrapping_add(bytes);
    let before = HELD_BEFORE.load(Relaxed);
    if before != usize::MAX && held.saturating_sub(before) > HELD_MAX_BYTES {
        eprintln!("an input had {} bytes allocated", held - before);
        abort();
    }
}

// SAFETY: every call goes to the system's allocator as it comes.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD_BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        HELD_BYTES.fetch_sub(layout.size(), Relaxed);
        take(new_bytes);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, new_bytes) }
    }
}
