//! From registers and a stack copy to the addresses of the calls, innermost first.

use framehop::{FrameAddress, Module, Unwinder};

use super::modules::{Code, ModuleTable};
use super::{Registers, StackSample};

#[cfg(target_arch = "aarch64")]
mod arch {
    pub(super) use framehop::aarch64::{
        CacheAarch64 as Cache, UnwindRegsAarch64 as UnwindRegisters, UnwinderAarch64 as Arch,
    };
}
#[cfg(not(target_arch = "aarch64"))]
mod arch {
    pub(super) use framehop::x86_64::{
        CacheX86_64 as Cache, UnwindRegsX86_64 as UnwindRegisters, UnwinderX86_64 as Arch,
    };
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
}

pub(super) struct Walk {
    pub(super) addresses: Vec<FrameAddress>,
    pub(super) stop: Stop,
}

/// The unwind tables of one process, with the rules already looked up.
pub(super) struct ProcessUnwinder {
    unwinder: arch::Arch<bytes::Bytes>,
    cache: arch::Cache,
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
        }
    }

    pub(super) fn walk(&mut self, table: &ModuleTable, sample: &StackSample) -> Walk {
        let registers = &sample.registers;
        let mut read = |address| sample.read_u64(address).ok_or(());
        let mut unwound = unwind_registers(registers);
        let mut address = FrameAddress::from_instruction_pointer(registers.ip);
        let mut addresses = Vec::new();
        let stop = loop {
            if table.at(address.address_for_lookup()).is_none() {
                break Stop::OutsideCode(address.address());
            }
            if addresses.len() == FRAMES_MAX {
                break Stop::TooDeep;
            }
            addresses.push(address);
            let step =
                self.unwinder
                    .unwind_frame(address, &mut unwound, &mut self.cache, &mut read);
            let next = match step {
                Ok(Some(next)) => next,
                Ok(None) if self.says_root(address) => break Stop::Root,
                Ok(None) => break Stop::NoCaller,
                Err(framehop::Error::CouldNotReadStack(at)) => break Stop::Unread(at),
                Err(framehop::Error::ReturnAddressIsNull) => break Stop::NoCaller,
                Err(_) => break Stop::Inconsistent,
            };
            match FrameAddress::from_return_address(next) {
                Some(next) => address = next,
                None => break Stop::NoCaller,
            }
        };
        Walk { addresses, stop }
    }

    /// framehop also reports "no caller" where a frame pointer happens to be 0. Asked again with a
    /// frame pointer that is not 0 and a stack that cannot be read, only a rule that says "the
    /// outermost function" still answers so.
    fn says_root(&mut self, address: FrameAddress) -> bool {
        let mut registers = unwind_registers(&Registers {
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

#[cfg(target_arch = "aarch64")]
fn unwind_registers(registers: &Registers) -> arch::UnwindRegisters {
    arch::UnwindRegisters::new(registers.lr, registers.sp, registers.fp)
}

#[cfg(not(target_arch = "aarch64"))]
fn unwind_registers(registers: &Registers) -> arch::UnwindRegisters {
    arch::UnwindRegisters::new(registers.ip, registers.sp, registers.fp)
}

impl StackSample {
    /// The eight bytes at `address` of the target's stack, as they were at connect.
    pub fn read_u64(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.registers.sp)?).ok()?;
        let bytes = self.copy.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}
