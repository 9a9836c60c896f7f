//! The layout of one CPython version: where its structs keep what the walk and the names need.

use super::super::elf::u64_at;
use super::super::interpreters::{Caller, FrameLayout, Root};

/// CPython 3.`minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) minor: u16,
}

impl Version {
    /// `Py_Version`, which libpython has since 3.11: 0x030b02f0.
    pub(super) fn from_hex(hex: u64) -> Option<Self> {
        let minor = (hex >> 16) & 0xff;
        (hex >> 24 == 3).then_some(Self {
            minor: minor as u16,
        })
    }

    /// `python3.9`, `libpython3.9.so.1.0`, `libpython3.8m.so.1.0`.
    pub(super) fn from_file_name(name: &str) -> Option<Self> {
        let after = name.split_once("python3.")?.1;
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        Some(Self {
            minor: digits.parse().ok()?,
        })
    }
}

/// What leads from `_PyRuntime` to the states of its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StateList {
    pub(super) interpreters_head: u64,
    pub(super) threads_head: u64,
    pub(super) state_next: u64,
    pub(super) state_thread: u64,
    pub(super) slots: Slots,
}

/// Where a thread keeps its state while it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slots {
    /// As the value of a pthread key.
    Keys,
    /// In a thread-local variable, from 3.15 on (`_Py_tss_gilstate`).
    Locals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) states: StateList,
    frame: FrameOffsets,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FrameOffsets {
    state_thread: u16,
    state_frame: u16,
    cframe_frame: Option<u16>,
    code: u16,
    previous: u16,
    instruction: u16,
    instruction_is_i32: bool,
    owner: Option<u16>,
}

/// Bytes of `_PyRuntime` that [`Layout::of`] wants to see.
pub(super) const RUNTIME_HEAD_BYTES: usize = 64 * 8;

impl Layout {
    /// `runtime_head` is what `_PyRuntime` begins with: since 3.13 a description of itself.
    pub(super) fn of(version: Version, runtime_head: &[u8]) -> Result<Self, String> {
        let states = |interpreters_head, threads_head, state_thread| StateList {
            interpreters_head,
            threads_head,
            state_next: 8,
            state_thread,
            slots: Slots::Keys,
        };
        let old = |instruction| FrameOffsets {
            state_thread: 176,
            state_frame: 24,
            cframe_frame: None,
            code: 32,
            previous: 24,
            instruction,
            instruction_is_i32: true,
            owner: None,
        };
        match version.minor {
            8 | 9 => Ok(Self {
                states: states(32, 8, 176),
                frame: old(104),
            }),
            10 => Ok(Self {
                states: states(32, 8, 176),
                frame: old(96),
            }),
            11 => Ok(Self {
                states: states(40, 16, 152),
                frame: FrameOffsets {
                    state_thread: 152,
                    state_frame: 56,
                    cframe_frame: Some(8),
                    code: 32,
                    previous: 48,
                    instruction: 56,
                    instruction_is_i32: false,
                    owner: Some(69),
                },
            }),
            12 => Ok(Self {
                states: states(40, 72, 136),
                frame: FrameOffsets {
                    state_thread: 136,
                    state_frame: 56,
                    cframe_frame: Some(0),
                    code: 0,
                    previous: 8,
                    instruction: 56,
                    instruction_is_i32: false,
                    owner: Some(70),
                },
            }),
            13 => described(runtime_head, WORDS_3_13),
            14 => described(runtime_head, WORDS_3_14),
            15 => described(runtime_head, WORDS_3_15),
            minor => Err(format!("CPython 3.{minor} is not supported")),
        }
    }

    pub(super) fn frames(&self, slot: i64) -> FrameLayout {
        let frame = self.frame;
        FrameLayout {
            root: Root::Thread(slot),
            state_owner: None,
            owner_native: None,
            state_thread: frame.state_thread,
            state_frame: frame.state_frame,
            cframe_frame: frame.cframe_frame,
            frame_code: frame.code,
            caller: Caller::Linked {
                previous: frame.previous,
            },
            frame_instruction: frame.instruction,
            instruction_is_i32: frame.instruction_is_i32,
            frame_owner: frame.owner,
        }
    }
}

/// Where a description has what is needed: the index of its words.
struct Described {
    /// `thread_state.size`; the links and the innermost frame follow it.
    thread_state: usize,
    thread_id: usize,
    /// `interpreter_frame.size`
    frame: usize,
    slots: Slots,
}

const WORDS_3_13: Described = Described {
    thread_state: 19,
    thread_id: 24,
    frame: 28,
    slots: Slots::Keys,
};
/// The interpreter's part got three words more.
const WORDS_3_14: Described = Described {
    thread_state: 22,
    thread_id: 27,
    frame: 31,
    slots: Slots::Keys,
};
/// So did the thread's, between the innermost frame and the thread's number.
const WORDS_3_15: Described = Described {
    thread_state: 22,
    thread_id: 30,
    frame: 39,
    slots: Slots::Locals,
};

/// `_Py_DebugOffsets`, Include/internal/pycore_debug_offsets.h: a cookie, the version, whether
/// threads are free, then the sizes and offsets of one struct after the other.
fn described(head: &[u8], words: Described) -> Result<Layout, String> {
    let Described {
        thread_state,
        thread_id,
        frame,
        ..
    } = words;
    if head.get(..8) != Some(b"xdebugpy") {
        return Err("its runtime does not describe itself".to_owned());
    }
    let word = |index: usize| u64_at(head, index * 8);
    if word(2) != 0 {
        return Err("free-threaded CPython is not supported".to_owned());
    }
    let short = |index: usize, bound: u64| {
        u16::try_from(word(index))
            .ok()
            .filter(|offset| u64::from(*offset) < bound)
            .ok_or_else(|| "its runtime describes itself with impossible offsets".to_owned())
    };
    Ok(Layout {
        states: StateList {
            interpreters_head: word(5),
            threads_head: word(9),
            state_next: word(thread_state + 2),
            state_thread: word(thread_id),
            slots: words.slots,
        },
        frame: FrameOffsets {
            state_thread: short(thread_id, 4096)?,
            state_frame: short(thread_state + 4, 4096)?,
            cframe_frame: None,
            code: short(frame + 2, 112)?,
            previous: short(frame + 1, 112)?,
            instruction: short(frame + 3, 112)?,
            instruction_is_i32: false,
            owner: Some(short(frame + 5, 112)?),
        },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_are_read_from_the_symbol_and_from_file_names() {
        assert_eq!(Version::from_hex(0x030b_02f0), Some(Version { minor: 11 }));
        assert_eq!(Version::from_hex(0x020b_02f0), None);
        let named = |name| Version::from_file_name(name).map(|version| version.minor);
        assert_eq!(named("libpython3.8.so.1.0"), Some(8));
        assert_eq!(named("python3.10"), Some(10));
        assert_eq!(named("libpython3.6m.so.1.0"), Some(6));
        assert_eq!(named("python3"), None);
    }

    #[test]
    fn free_threaded_and_unknown_versions_are_refused_by_name() {
        let mut head = vec![0; RUNTIME_HEAD_BYTES];
        head[..8].copy_from_slice(b"xdebugpy");
        head[16] = 1;
        let refused = |minor| Layout::of(Version { minor }, &head).expect_err("refused");
        assert_eq!(refused(14), "free-threaded CPython is not supported");
        assert_eq!(refused(16), "CPython 3.16 is not supported");
        assert_eq!(refused(7), "CPython 3.7 is not supported");
    }

    proptest! {
        #[test]
        fn any_description_is_a_layout_within_the_window_or_refused(
            minor in 8_u16..17,
            mut head in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            if head.len() > 8 {
                head[..8].copy_from_slice(b"xdebugpy");
            }
            if let Ok(layout) = Layout::of(Version { minor }, &head) {
                prop_assert!(layout.frame.instruction < 120);
            }
        }
    }
}
