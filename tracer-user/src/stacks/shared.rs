//! Shared stacks: one allocation for all sockets of a leak, and a bound on all of them together.
//!
//! How long names and paths are is the target's choice, and how many sockets keep a stack too.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Frame, Stack};

/// A stack of 512 frames of ordinary programs has some 100 KiB.
const STACK_MAX_BYTES: usize = 512 << 10;
const NOTE_MAX_BYTES: usize = 4 << 10;
/// Stacks that no socket has any more, to be found again when the same place connects again.
const IDLE_MAX_BYTES: usize = 8 << 20;
const HELD_MAX_BYTES: usize = 128 << 20;

/// The stacks that came out, as long as a socket has them and some longer.
#[derive(Debug)]
pub(super) struct SharedStacks {
    known: HashSet<Arc<Stack>>,
    bytes: usize,
    /// When stacks that no socket has are looked for: seldom enough to cost nothing.
    sweep_above_bytes: usize,
    bound_bytes: usize,
}

impl Default for SharedStacks {
    fn default() -> Self {
        Self::new(HELD_MAX_BYTES)
    }
}

impl SharedStacks {
    fn new(bound_bytes: usize) -> Self {
        Self {
            known: HashSet::new(),
            bytes: 0,
            sweep_above_bytes: IDLE_MAX_BYTES.min(bound_bytes),
            bound_bytes,
        }
    }

    /// The same stack, shared. Where the sockets' stacks fill the bound, one that says so.
    pub(super) fn share(&mut self, stack: Stack) -> Arc<Stack> {
        let stack = stack.cut();
        if let Some(known) = self.known.get(&stack) {
            return Arc::clone(known);
        }
        let bytes = stack.held_bytes();
        if self.bytes + bytes > self.sweep_above_bytes {
            self.sweep();
        }
        if self.bytes + bytes > self.bound_bytes {
            // Not kept: it is the same for all, and small.
            return Arc::new(Stack::missing(
                "the stacks of all sockets fill their memory",
            ));
        }
        let stack = Arc::new(stack);
        self.bytes += bytes;
        self.known.insert(Arc::clone(&stack));
        stack
    }

    /// Forgets the stacks that no socket has.
    pub(super) fn sweep(&mut self) {
        self.known.retain(|stack| Arc::strong_count(stack) > 1);
        self.bytes = self.known.iter().map(|stack| stack.held_bytes()).sum();
        self.sweep_above_bytes = (self.bytes * 2).max(IDLE_MAX_BYTES).min(self.bound_bytes);
    }
}

impl Stack {
    fn held_bytes(&self) -> usize {
        let frames: usize = self.frames.iter().map(Frame::held_bytes).sum();
        size_of::<Self>() + frames + self.note.as_ref().map_or(0, String::len)
    }

    /// The innermost frames that fit, and a note that says where it ends.
    fn cut(mut self) -> Self {
        let mut bytes = 0;
        let fitting = self.frames.iter().take_while(|frame| {
            bytes += frame.held_bytes();
            bytes <= STACK_MAX_BYTES
        });
        let fitting = fitting.count();
        if fitting < self.frames.len() {
            self.frames.truncate(fitting);
            let end = format!(
                "stack ends early: its names are larger than {} KiB",
                STACK_MAX_BYTES >> 10
            );
            self.note = Some(match self.note.take() {
                Some(note) => format!("{end}; {note}"),
                None => end,
            });
        }
        if let Some(note) = &mut self.note {
            cut_text(note, NOTE_MAX_BYTES);
        }
        // What grew while it was put together keeps room that it does not use.
        self.frames.shrink_to_fit();
        self
    }
}

impl Frame {
    pub(super) fn held_bytes(&self) -> usize {
        let texts = [&self.function, &self.file, &self.module];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        size_of::<Self>() + texts
    }
}

fn cut_text(text: &mut String, max_bytes: usize) {
    let end = (0..=max_bytes.min(text.len())).rfind(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::super::FrameKind;
    use super::*;

    fn stack(name: &str, frames: usize) -> Stack {
        let frame = Frame {
            function: Some(name.to_owned()),
            file: None,
            line: None,
            module: None,
            kind: FrameKind::Native,
            inlined: false,
        };
        Stack {
            frames: vec![frame; frames],
            note: None,
        }
    }

    #[test]
    fn the_same_stack_is_one_allocation() {
        let mut shared = SharedStacks::default();
        let first = shared.share(stack("get_client", 3));
        assert!(Arc::ptr_eq(&first, &shared.share(stack("get_client", 3))));
    }

    #[test]
    fn stacks_that_no_socket_has_stay_within_the_bound() {
        let mut shared = SharedStacks::new(1 << 20);
        for number in 0..10_000 {
            let name = format!("{number:01000}");
            assert_eq!(shared.share(stack(&name, 1)), Arc::new(stack(&name, 1)));
            let held: usize = shared.known.iter().map(|stack| stack.held_bytes()).sum();
            assert_eq!(held, shared.bytes);
            assert!(shared.bytes <= 1 << 20);
        }
    }

    #[test]
    fn stacks_of_sockets_that_fill_the_bound_make_the_next_one_say_so() {
        let mut shared = SharedStacks::new(1 << 20);
        let held: Vec<Arc<Stack>> = (0..2_000)
            .map(|number| shared.share(stack(&format!("{number:01000}"), 1)))
            .collect();
        assert!(shared.bytes <= 1 << 20);
        assert!(!held[0].frames.is_empty());
        let last = held.last().expect("a stack");
        assert!(last.note.is_some() && last.frames.is_empty());
        drop(held);
        assert!(!shared.share(stack("get_client", 1)).frames.is_empty());
    }

    #[test]
    fn a_stack_of_endless_names_is_cut_and_says_so() {
        let mut shared = SharedStacks::default();
        let cut = shared.share(stack(&"é".repeat(5_000), 500));
        assert!(cut.held_bytes() <= STACK_MAX_BYTES + NOTE_MAX_BYTES);
        assert!(cut.frames.len() > 10 && cut.note.is_some());
        let guessed = Stack {
            note: Some("they may be wrong".to_owned()),
            ..stack(&"é".repeat(5_000), 500)
        };
        let note = shared.share(guessed).note.clone().expect("a note");
        assert!(note.starts_with("stack ends early: its names"), "{note}");
        assert!(note.ends_with("; they may be wrong"), "{note}");
        let noted = Stack {
            note: Some("é".repeat(5_000)),
            ..stack("f", 1)
        };
        assert_eq!(
            shared.share(noted).note.as_ref().map(String::len),
            Some(4096)
        );
    }
}
