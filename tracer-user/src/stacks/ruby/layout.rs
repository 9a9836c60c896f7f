//! The layout of one Ruby version: where its structs keep what the walk and the names need.

use super::super::elf::u32_at;
use super::super::interpreters::{Caller, FrameLayout, Root};

/// `ruby_api_version`, version.c: major, minor, and what does not change a layout.
pub(super) const VERSION_BYTES: usize = 12;

/// Ruby 3.`minor`. Each field is the same in every release of a minor version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) minor: u32,
    /// `rb_thread_t`, vm_core.h: its `ec`, and the native thread's struct or its number itself.
    pub(super) thread_execution: u16,
    pub(super) thread_native: Option<u16>,
    pub(super) thread_id: u16,
    /// `rb_execution_context_t`: `thread_ptr`.
    pub(super) execution_thread: u16,
    /// `rb_control_frame_t`.
    frame_bytes: u16,
    /// `rb_iseq_constant_body`: `insns_info`.
    pub(super) lines: usize,
    /// `struct iseq_insn_info_entry`, iseq.h.
    pub(super) line_bytes: usize,
}

/// `rb_vm_t`, since 3.0: `ractor.main_thread`.
pub(super) const VM_MAIN_THREAD: u64 = 40;
/// `rb_thread_t`: the next in the ring of its ractor's threads, and `vm`.
pub(super) const THREAD_NEXT: usize = 0;
pub(super) const THREAD_VM: usize = 32;
/// `rb_execution_context_t`: `vm_stack`, `vm_stack_size` and `cfp` begin it.
pub(super) const EXECUTION_STACK: u16 = 0;
pub(super) const EXECUTION_FRAME: u16 = 16;
/// `rb_control_frame_t`.
const FRAME_PC: u16 = 0;
const FRAME_CODE: u16 = 16;

impl Layout {
    /// What `ruby_api_version` holds; `name` is the file's, for the reason.
    pub(super) fn of(version: &[u8], name: &str) -> Result<Self, String> {
        let (major, minor) = (u32_at(version, 0), u32_at(version, 4));
        let old = Self {
            minor,
            thread_execution: 40,
            thread_native: None,
            thread_id: 80,
            execution_thread: 48,
            frame_bytes: 64,
            lines: 120,
            line_bytes: 12,
        };
        let new = Self {
            thread_execution: 48,
            thread_native: Some(40),
            thread_id: 16,
            frame_bytes: 56,
            lines: 112,
            ..old
        };
        match (major, minor) {
            (3, 0) => Ok(Self {
                execution_thread: 56,
                frame_bytes: 56,
                line_bytes: 8,
                ..old
            }),
            (3, 1) => Ok(old),
            (3, 2) => Ok(Self {
                thread_id: 8,
                frame_bytes: 64,
                ..new
            }),
            (3, 3 | 4) => Ok(new),
            (1..=9, 0..=99) => Err(format!("Ruby {major}.{minor} is not supported")),
            _ => Err(format!("{name} does not tell its version")),
        }
    }

    /// Embedded strings had their length in the flags until objects got sizes (3.2).
    pub(super) fn has_length_in_flags(&self) -> bool {
        self.minor < 2
    }

    pub(super) fn frames(&self, slot: i64) -> FrameLayout {
        FrameLayout {
            root: Root::Thread(slot),
            state_owner: Some(self.execution_thread),
            owner_native: self.thread_native,
            state_thread: self.thread_id,
            state_frame: EXECUTION_FRAME,
            cframe_frame: None,
            frame_code: FRAME_CODE,
            caller: Caller::Next {
                state_stack: EXECUTION_STACK,
                frame_bytes: self.frame_bytes,
            },
            frame_instruction: FRAME_PC,
            instruction_is_i32: false,
            frame_owner: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn version(major: u32, minor: u32) -> Vec<u8> {
        [major, minor, 0].map(u32::to_le_bytes).concat()
    }

    #[test]
    fn versions_that_are_not_known_are_refused_by_name() {
        let refused =
            |major, minor| Layout::of(&version(major, minor), "libruby.so").expect_err("refused");
        assert_eq!(refused(2, 7), "Ruby 2.7 is not supported");
        assert_eq!(refused(3, 5), "Ruby 3.5 is not supported");
        assert_eq!(refused(4, 0), "Ruby 4.0 is not supported");
        let garbage = refused(0x464c_457f, 0x10102);
        assert_eq!(garbage, "libruby.so does not tell its version");
        assert!(Layout::of(&[], "libruby.so").is_err());
        for minor in 0..=4 {
            assert!(Layout::of(&version(3, minor), "libruby.so").is_ok());
        }
    }
}
