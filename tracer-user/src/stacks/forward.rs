//! The way out of a function without unwind tables: its instructions, followed forward to the return.
//!
//! musl's libc has no tables for connect. Whatever way the code takes from here to its return, it
//! must leave the stack pointer where the caller had it, so that one way is enough, and the
//! function's start need not be known.

use std::collections::HashSet;

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register,
};

const INSTRUCTIONS_MAX: usize = 512;
const INSTRUCTION_MAX_BYTES: usize = 15;

/// Which register an offset counts from, both as they are before the first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    Sp,
    Fp,
}

/// Where the caller's registers lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Return {
    pub(super) base: Base,
    /// Of the return address; the caller's stack pointer is eight bytes further.
    pub(super) offset: i64,
    /// Of the frame pointer that the function saved, if it did.
    pub(super) saved_fp: Option<(Base, i64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WayOut {
    Return(Return),
    /// The code stops the thread: its function is the outermost.
    Never,
    Unknown,
}

#[derive(Clone, Copy)]
struct State {
    at: u64,
    base: Base,
    offset: i64,
    fp: FramePointer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FramePointer {
    Kept,
    Loaded(Base, i64),
    Unknown,
}

/// Follows the code from `start`; `code_at` gives up to 15 bytes of it, `ends_thread` says which
/// functions, once called, do not return.
pub(super) fn way_out(
    start: u64,
    mut code_at: impl FnMut(u64) -> Option<Vec<u8>>,
    mut ends_thread: impl FnMut(u64) -> bool,
) -> WayOut {
    let mut open = vec![State {
        at: start,
        base: Base::Sp,
        offset: 0,
        fp: FramePointer::Kept,
    }];
    let mut seen = HashSet::new();
    let mut stops = false;
    while let Some(mut state) = open.pop() {
        loop {
            if seen.len() >= INSTRUCTIONS_MAX || !seen.insert(state.at) {
                break;
            }
            let Some(instruction) = code_at(state.at).and_then(|code| decode(&code, state.at))
            else {
                break;
            };
            state.at = instruction.next_ip();
            match instruction.flow_control() {
                FlowControl::Return => return WayOut::Return(state.into_return()),
                FlowControl::UnconditionalBranch => state.at = instruction.near_branch_target(),
                FlowControl::ConditionalBranch => {
                    let at = instruction.near_branch_target();
                    open.push(State { at, ..state });
                }
                FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => {
                    let is_end = instruction.mnemonic() == Mnemonic::Hlt
                        || instruction.is_call_near()
                            && ends_thread(instruction.near_branch_target());
                    stops |= is_end;
                    if is_end || !state.apply(&instruction) {
                        break;
                    }
                }
                _ => break,
            }
        }
    }
    match stops {
        true => WayOut::Never,
        false => WayOut::Unknown,
    }
}

fn decode(code: &[u8], at: u64) -> Option<Instruction> {
    let code = &code[..code.len().min(INSTRUCTION_MAX_BYTES)];
    let instruction = Decoder::with_ip(64, code, at, DecoderOptions::NONE).decode();
    (!instruction.is_invalid()).then_some(instruction)
}

impl State {
    fn into_return(self) -> Return {
        let saved_fp = match self.fp {
            FramePointer::Loaded(base, offset) => Some((base, offset)),
            _ => None,
        };
        Return {
            base: self.base,
            offset: self.offset,
            saved_fp,
        }
    }

    /// `false` if the stack pointer is not known afterwards.
    fn apply(&mut self, instruction: &Instruction) -> bool {
        if matches!(
            instruction.flow_control(),
            FlowControl::Call | FlowControl::IndirectCall
        ) {
            // What is called returns with the stack as it was.
            return true;
        }
        let target = match instruction.op0_kind() {
            OpKind::Register => instruction.op0_register().full_register(),
            _ => Register::None,
        };
        match instruction.mnemonic() {
            Mnemonic::Push => self.offset -= 8,
            Mnemonic::Pop => {
                match target {
                    Register::RSP => return false,
                    Register::RBP => self.fp = FramePointer::Loaded(self.base, self.offset),
                    _ => {}
                }
                self.offset += 8;
            }
            Mnemonic::Leave => {
                if !self.take_fp(0) {
                    return false;
                }
                self.fp = FramePointer::Loaded(self.base, self.offset);
                self.offset += 8;
            }
            Mnemonic::Add | Mnemonic::Sub if target == Register::RSP => {
                if !is_immediate(instruction) {
                    return false;
                }
                let by = instruction.immediate(1) as i64;
                let by = match instruction.mnemonic() {
                    Mnemonic::Add => by,
                    _ => by.wrapping_neg(),
                };
                self.offset = self.offset.wrapping_add(by);
            }
            Mnemonic::Lea if target == Register::RSP => {
                let by = instruction.memory_displacement64() as i64;
                if instruction.memory_index() != Register::None {
                    return false;
                }
                match instruction.memory_base() {
                    Register::RSP => self.offset = self.offset.wrapping_add(by),
                    Register::RBP => return self.take_fp(by),
                    _ => return false,
                }
            }
            Mnemonic::Mov if target == Register::RSP => {
                return instruction.code() == Code::Mov_r64_rm64
                    && instruction.op1_kind() == OpKind::Register
                    && instruction.op1_register() == Register::RBP
                    && self.take_fp(0);
            }
            Mnemonic::Cmp | Mnemonic::Test => {}
            _ if target == Register::RSP => return false,
            _ if target == Register::RBP => self.fp = FramePointer::Unknown,
            _ if instruction.stack_pointer_increment() != 0 => return false,
            _ => {}
        }
        true
    }

    /// The stack pointer becomes the frame pointer plus `by`, if that is still the one we know.
    fn take_fp(&mut self, by: i64) -> bool {
        self.base = Base::Fp;
        self.offset = by;
        self.fp == FramePointer::Kept
    }
}

fn is_immediate(instruction: &Instruction) -> bool {
    matches!(
        instruction.op1_kind(),
        OpKind::Immediate8
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
            | OpKind::Immediate32
            | OpKind::Immediate64
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn way_out_of(code: &[u8]) -> WayOut {
        let code_at = |at: u64| {
            let at = usize::try_from(at.checked_sub(0x1000)?).ok()?;
            Some(code.get(at..)?.to_vec())
        };
        way_out(0x1000, code_at, |target| target == 0x2000)
    }

    fn returns(offset: i64, saved_fp: Option<(Base, i64)>) -> WayOut {
        WayOut::Return(Return {
            base: Base::Sp,
            offset,
            saved_fp,
        })
    }

    #[test]
    fn a_stub_returns_where_it_stands() {
        assert_eq!(way_out_of(&[0xc3]), returns(0, None));
    }

    #[test]
    fn an_epilogue_gives_the_return_address_and_the_frame_pointer() {
        // test eax, eax; jne +1; nop; add rsp, 0x18; pop rbx; pop rbp; ret
        let code = [
            0x85, 0xc0, 0x75, 0x01, 0x90, 0x48, 0x83, 0xc4, 0x18, 0x5b, 0x5d, 0xc3,
        ];
        assert_eq!(way_out_of(&code), returns(0x28, Some((Base::Sp, 0x20))));
    }

    #[test]
    fn leave_counts_from_the_frame_pointer() {
        let expected = Return {
            base: Base::Fp,
            offset: 8,
            saved_fp: Some((Base::Fp, 0)),
        };
        assert_eq!(way_out_of(&[0xc9, 0xc3]), WayOut::Return(expected));
    }

    #[test]
    fn a_loop_or_a_halt_ends_the_search() {
        assert_eq!(way_out_of(&[0xeb, 0xfe]), WayOut::Unknown);
        assert_eq!(way_out_of(&[0xf4]), WayOut::Never);
        // call 0x2000; ret
        assert_eq!(way_out_of(&[0xe8, 0xfb, 0x0f, 0, 0, 0xc3]), WayOut::Never);
        assert_eq!(
            way_out_of(&[0xe8, 0xfa, 0x0f, 0, 0, 0xc3]),
            returns(0, None)
        );
    }

    proptest! {
        #[test]
        fn any_code_has_an_answer(code in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = way_out_of(&code);
        }
    }
}
