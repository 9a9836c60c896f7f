//! What a bytecode calls, by which caller and callee tell whether they belong together.

use super::super::elf::u16_at;
use super::layout::Layout;
use super::method::MethodText;
use super::pool::Pool;
use super::walk_memory::WalkMemory;

/// interpreter/bytecodes.hpp: `invokevirtual`, `invokespecial`, `invokestatic`, `invokeinterface`.
const INVOKES: std::ops::RangeInclusive<u8> = 0xb6..=0xb9;
const INVOKE_DYNAMIC: u8 = 0xba;
/// `jsr_w`: what is above was written by the JVM itself in the place of another.
const LAST_OF_JAVA: u8 = 0xc9;
/// Methods of `MethodHandle` that go on in the method that they were given.
const ADAPTERS: [&str; 4] = ["invoke", "invokeExact", "invokeBasic", "linkTo"];

/// The callee of a frame, as far as its bytecode tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Called {
    Method(String),
    /// A method that something else has chosen.
    Any,
    /// None: the bytecode calls no method.
    Nothing,
}

impl Called {
    /// Of the bytecode at `bci`.
    pub(super) fn at(
        memory: WalkMemory<'_>,
        layout: &Layout,
        method: &MethodText,
        bci: u32,
    ) -> Self {
        let read = || {
            let code = memory.read(method.bytecode.checked_add(bci.into())?, 3)?;
            match code[0] {
                invoke if INVOKES.contains(&invoke) => {}
                INVOKE_DYNAMIC => return Some(Self::Any),
                other if other <= LAST_OF_JAVA => return Some(Self::Nothing),
                _ => return Some(Self::Any),
            }
            let pool = Pool::read(memory, &layout.method, method.pool)?;
            let name = pool.called(memory, &layout.method, u16_at(&code, 1))?;
            let is_adapter = ADAPTERS.iter().any(|adapter| match *adapter {
                "linkTo" => name.starts_with("linkTo"),
                adapter => name == adapter,
            });
            Some(if is_adapter {
                Self::Any
            } else {
                Self::Method(name)
            })
        };
        // A call that cannot be read is none that was made.
        read().unwrap_or(Self::Nothing)
    }

    pub(super) fn may_be(&self, callee: &str) -> bool {
        match self {
            Self::Method(name) => name == callee,
            Self::Any => true,
            Self::Nothing => false,
        }
    }
}
