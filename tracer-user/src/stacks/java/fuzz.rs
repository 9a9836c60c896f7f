//! A JVM's memory as a fuzzer writes it.

use super::super::elf::u64_at;
use super::super::fuzz::{MEMORY, with_memory};
use super::super::looked::Looked;
use super::activation::Returned;
use super::machine::find;
use super::method::MethodReader;
use super::tables::Symbols;
use super::walker::{Walked, Walker};

/// Where an input has the registers of a frame; the variables that describe it stand before.
const REGISTERS: usize = 0x80;
/// Of one input: else an input of many is slow, and none of them is.
const FRAMES_MAX: usize = 16;
const TEXT_MAX_BYTES: usize = 8 << 10;

/// The memory of a JVM: it is found by what it says of itself, and a stack in it walked and named.
pub fn memory(bytes: &[u8]) {
    with_memory(bytes, |memory| {
        let symbols = Symbols(std::array::from_fn(|index| MEMORY + index as u64 * 8));
        let Looked::Found(machine) = find(std::process::id(), &symbols, 0) else {
            return;
        };
        let [pc, sp, fp] = [0, 8, 16].map(|at| u64_at(bytes, REGISTERS + at));
        let mut at = Returned { pc, sp, fp };
        let mut methods = MethodReader::default();
        let mut walker = Walker::new(&machine, &mut methods);
        for _ in 0..FRAMES_MAX {
            let Walked::Frames(frames, caller) = walker.step(at, |at| memory.u64_at(at)) else {
                return;
            };
            assert!(caller.sp > at.sp);
            for frame in frames {
                let texts = [frame.function, frame.file].into_iter().flatten();
                assert!(texts.map(|text| text.len()).sum::<usize>() <= TEXT_MAX_BYTES);
            }
            at = caller;
        }
    });
}
