//! From registers and a stack copy to the addresses of the calls, innermost first.

use std::collections::HashMap;

use framehop::{FrameAddress, Module, Unwinder};

use super::forward::{Base, Return, WayOut, way_out};
use super::image::Image;
use super::java;
use super::modules::{Code, ModuleTable};
use super::symbolize::NameSources;
use super::{Frame, Registers, StackSample};

#[cfg(target_arch = "aarch64")]
mod arch {
    pub(super) use framehop::aarch64::{
        CacheAarch64 as Cache, UnwindRegsAarch64 as UnwindRegisters, UnwinderAarch64 as Arch,
    };

    pub(super) fn registers(registers: &super::Registers) -> UnwindRegisters {
        UnwindRegisters::new(registers.lr, registers.sp, registers.fp)
    }

    pub(super) fn fp(registers: &UnwindRegisters) -> u64 {
        registers.fp()
    }

    pub(super) fn enter_caller(registers: &mut UnwindRegisters, ip: u64, sp: u64, fp: u64) {
        registers.set_lr(ip);
        registers.set_sp(sp);
        registers.set_fp(fp);
    }
}

#[cfg(not(target_arch = "aarch64"))]
mod arch {
    pub(super) use framehop::x86_64::{
        CacheX86_64 as Cache, UnwindRegsX86_64 as UnwindRegisters, UnwinderX86_64 as Arch,
    };

    pub(super) fn registers(registers: &super::Registers) -> UnwindRegisters {
        UnwindRegisters::new(registers.ip, registers.sp, registers.fp)
    }

    pub(super) fn fp(registers: &UnwindRegisters) -> u64 {
        registers.bp()
    }

    pub(super) fn enter_caller(registers: &mut UnwindRegisters, ip: u64, sp: u64, fp: u64) {
        registers.set_ip(ip);
        registers.set_sp(sp);
        registers.set_bp(fp);
    }
}

pub(super) const FRAMES_MAX: usize = 256;

/// Why the walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The unwind tables say that this function has no caller.
    Root,
    /// No caller was found, but nothing says that there is none.
    NoCaller,
    /// The stack could not be read at this address.
    Unread(u64),
    /// The next return address lies in no executable mapping.
    OutsideCode(u64),
    /// The registers found are impossible.
    Inconsistent,
    TooDeep,
    /// The frames outside are those of a virtual thread, and not on this stack.
    InHeap,
    /// What the next frame ran stands there no more.
    CodeGone,
    /// Of a JVM no more is read for one stack.
    ReadEnough,
}

pub(super) struct Walk {
    pub(super) addresses: Vec<FrameAddress>,
    /// Frames (by index) whose caller was found by the frame pointer, where nothing says that the
    /// code keeps one.
    pub(super) guessed: Vec<usize>,
    /// What the frames of a JVM run, by index.
    pub(super) java: HashMap<usize, Vec<Frame>>,
    pub(super) stop: Stop,
}

/// The unwind tables of one process, with the rules already looked up.
pub(super) struct ProcessUnwinder {
    unwinder: arch::Arch<bytes::Bytes>,
    cache: arch::Cache,
    /// Code without tables, by address; `None` if tables cover it.
    ways_out: HashMap<u64, Option<WayOut>>,
}

const WAYS_OUT_MAX: usize = 4_096;
/// A function that calls one of these next has no caller worth finding.
const THREAD_ENDS: [&str; 7] = [
    "exit",
    "_exit",
    "_Exit",
    "abort",
    "pthread_exit",
    "__pthread_exit",
    "thrd_exit",
];
const CALL_MAX_BYTES: u64 = 7;

/// How the caller of one frame was found.
enum Step {
    Caller(u64),
    Guessed(u64),
    Java(Vec<Frame>, u64),
    End(Stop),
    /// The outermost frames, so many, are not to be shown.
    EndBefore(Stop, usize),
}

impl ProcessUnwinder {
    pub(super) fn new(table: &ModuleTable) -> Self {
        let mut unwinder = arch::Arch::new();
        for mapping in &table.mappings {
            let Code::Image { image, bias } = &mapping.code else {
                continue;
            };
            if image.unwind.is_empty() {
                continue;
            }
            let module = Module::new(
                mapping.path.to_string(),
                mapping.range.clone(),
                image.elf.base_address().wrapping_add(*bias),
                image.unwind.for_framehop(&image.elf),
            );
            unwinder.add_module(module);
        }
        Self {
            unwinder,
            cache: arch::Cache::new(),
            ways_out: HashMap::new(),
        }
    }

    /// Beside the tables, which the images hold.
    pub(super) fn held_bytes(&self) -> usize {
        const WAY_OUT_BYTES: usize = size_of::<(u64, Option<WayOut>)>() * 2;
        size_of::<arch::Cache>() + self.ways_out.len() * WAY_OUT_BYTES
    }

    pub(super) fn walk(
        &mut self,
        table: &ModuleTable,
        sample: &StackSample,
        sources: &NameSources,
        mut java: Option<java::Walker<'_>>,
    ) -> Walk {
        let registers = &sample.registers;
        let mut read = |address| sample.read_u64(address).ok_or(());
        let mut unwound = arch::registers(registers);
        let mut address = FrameAddress::from_instruction_pointer(registers.ip);
        let mut addresses = Vec::new();
        let mut guessed = Vec::new();
        let mut java_frames = HashMap::new();
        // Of one address as many as were inlined there.
        let mut java_count = 0;
        let stop = loop {
            if table.at(address.address_for_lookup()).is_none() {
                break Stop::OutsideCode(address.address());
            }
            if addresses.len() == FRAMES_MAX || java_count >= FRAMES_MAX {
                break Stop::TooDeep;
            }
            addresses.push(address);
            let step = match &mut java {
                Some(java) if java.has_code(address.address()) => {
                    java_step(java, address, &mut unwound, &mut read)
                }
                _ => self.step(table, address, sources, &mut unwound, &mut read),
            };
            let next = match step {
                Step::Caller(next) => next,
                Step::Guessed(next) => {
                    guessed.push(addresses.len() - 1);
                    next
                }
                Step::Java(frames, next) => {
                    java_count += frames.len();
                    java_frames.insert(addresses.len() - 1, frames);
                    next
                }
                Step::End(stop) => break stop,
                Step::EndBefore(stop, count) => {
                    addresses.truncate(addresses.len().saturating_sub(count));
                    break stop;
                }
            };
            match FrameAddress::from_return_address(next) {
                Some(next) => address = next,
                None => break Stop::NoCaller,
            }
        };
        Walk {
            addresses,
            guessed,
            java: java_frames,
            stop,
        }
    }

    fn step(
        &mut self,
        table: &ModuleTable,
        address: FrameAddress,
        sources: &NameSources,
        registers: &mut arch::UnwindRegisters,
        read: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Step {
        let code = table.at(address.address_for_lookup()).map(|m| &m.code);
        // Of code made at run time the frame pointer is believed, but where `ending` knows better.
        let mut is_guess = matches!(code, Some(Code::Unreadable(_) | Code::Anonymous));
        if let Some(Code::Image { image, bias }) = code {
            match self.way_out(image, *bias, address, sources) {
                Some(WayOut::Return(way)) => {
                    if let Some(caller) = take_way_out(way, table, registers, read) {
                        return Step::Caller(caller);
                    }
                    is_guess = true;
                }
                Some(WayOut::Never) => return Step::End(Stop::Root),
                Some(_) => is_guess = true,
                None => {}
            }
            // Go keeps frame pointers everywhere, so that its frames need no tables.
            is_guess &= !image.is_go();
        }
        let step = self
            .unwinder
            .unwind_frame(address, registers, &mut self.cache, read);
        match step {
            Ok(Some(next)) if is_guess => Step::Guessed(next),
            Ok(Some(next)) => Step::Caller(next),
            Ok(None) if self.says_root(address) => Step::End(Stop::Root),
            Ok(None) => Step::End(Stop::NoCaller),
            Err(framehop::Error::CouldNotReadStack(at)) => Step::End(Stop::Unread(at)),
            Err(framehop::Error::ReturnAddressIsNull) => Step::End(Stop::NoCaller),
            Err(_) => Step::End(Stop::Inconsistent),
        }
    }

    /// `None` where unwind tables cover the code, so that it need not be read.
    fn way_out(
        &mut self,
        image: &Image,
        bias: u64,
        address: FrameAddress,
        sources: &NameSources,
    ) -> Option<WayOut> {
        let is_covered = |address: FrameAddress| {
            let in_file = address.address_for_lookup().wrapping_sub(bias);
            image.unwind.covers(in_file) || (image.is_go() && address.is_return_address())
        };
        if cfg!(not(target_arch = "x86_64")) {
            return None;
        }
        if self.ways_out.len() >= WAYS_OUT_MAX {
            self.ways_out.clear();
        }
        *self.ways_out.entry(address.address()).or_insert_with(|| {
            let start = address.address().wrapping_sub(bias);
            let ends_thread = |target| {
                let functions = image.lookup(target, sources);
                let name = functions
                    .last()
                    .and_then(|function| function.function.as_deref());
                name.is_some_and(|name| THREAD_ENDS.contains(&name))
            };
            (!is_covered(address)).then(|| way_out(start, |at| image.code_at(at, 15), ends_thread))
        })
    }

    /// framehop also reports "no caller" where a frame pointer happens to be 0. Asked again with a
    /// frame pointer that is not 0 and a stack that cannot be read, only a rule that says "the
    /// outermost function" still answers so.
    fn says_root(&mut self, address: FrameAddress) -> bool {
        let mut registers = arch::registers(&Registers {
            ip: address.address(),
            sp: 8,
            fp: 1 << 20,
            lr: 1,
        });
        let step =
            self.unwinder
                .unwind_frame(address, &mut registers, &mut self.cache, &mut |_| Err(()));
        step == Ok(None)
    }
}

/// A JVM's code keeps no frame pointer that could be trusted: what it does not explain ends the walk.
fn java_step(
    java: &mut java::Walker<'_>,
    address: FrameAddress,
    registers: &mut arch::UnwindRegisters,
    read: &mut impl FnMut(u64) -> Result<u64, ()>,
) -> Step {
    let at = java::Returned {
        pc: address.address(),
        sp: registers.sp(),
        fp: arch::fp(registers),
    };
    match java.step(at, |address| read(address).ok()) {
        java::Walked::Frames(frames, caller) => {
            arch::enter_caller(registers, caller.pc, caller.sp, caller.fp);
            Step::Java(frames, caller.pc)
        }
        java::Walked::InHeap => Step::EndBefore(Stop::InHeap, 1),
        java::Walked::Bounded => Step::EndBefore(Stop::ReadEnough, 1),
        java::Walked::Unread(address) => Step::EndBefore(Stop::Unread(address), 1),
        java::Walked::Gone { callee_too } => {
            Step::EndBefore(Stop::CodeGone, 1 + usize::from(callee_too))
        }
    }
}

/// Gives the caller's registers if what lies there is the return address of a call.
fn take_way_out(
    way: Return,
    table: &ModuleTable,
    registers: &mut arch::UnwindRegisters,
    read: &mut impl FnMut(u64) -> Result<u64, ()>,
) -> Option<u64> {
    let (sp, fp) = (registers.sp(), arch::fp(registers));
    let place = |base, offset| match base {
        Base::Sp => sp.checked_add_signed(offset),
        Base::Fp => fp.checked_add_signed(offset),
    };
    let return_at = place(way.base, way.offset)?;
    let caller = read(return_at).ok()?;
    if return_at < sp || !is_behind_call(table, caller) {
        return None;
    }
    let callers_fp = match way.saved_fp {
        Some((base, offset)) => read(place(base, offset)?).ok()?,
        None => fp,
    };
    arch::enter_caller(registers, caller, return_at.checked_add(8)?, callers_fp);
    Some(caller)
}

/// A call that never returns may have led us on into another function; what we then take for a
/// return address seldom lies behind a call.
fn is_behind_call(table: &ModuleTable, address: u64) -> bool {
    let from = address.wrapping_sub(CALL_MAX_BYTES);
    let Some(Code::Image { image, bias }) = table.at(from).map(|mapping| &mapping.code) else {
        // Code written at run time cannot be looked at here.
        return table.at(address).is_some();
    };
    let code = image.code_at(from.wrapping_sub(*bias), CALL_MAX_BYTES);
    code.is_some_and(|code| code.len() as u64 == CALL_MAX_BYTES && ends_with_call(&code))
}

fn ends_with_call(code: &[u8]) -> bool {
    let is_indirect = |at: usize| code[at] == 0xff && (code[at + 1] >> 3) & 7 == 2;
    code[2] == 0xe8 || [0, 1, 3, 4, 5].into_iter().any(is_indirect)
}

impl StackSample {
    /// The eight bytes at `address` of the target's stack, as they were at connect.
    pub fn read_u64(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.registers.sp)?).ok()?;
        let bytes = self.copy.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}
