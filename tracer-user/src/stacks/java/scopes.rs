//! The scopes of compiled code: which methods one instruction runs, the inlined ones innermost.
//!
//! code/pcDesc.hpp: an array, sorted by place, from each call's return address to a place in the
//! scopes' data. code/scopeDesc.cpp: there stand the scope outside, method and bytecode index.

use super::super::elf::{u32_at, u64_at};
use super::unsigned5::Unsigned5;

/// `MaxInlineLevel` is 15, and some methods are inlined whatever it says.
const SCOPES_MAX: usize = 64;
/// `InvocationEntryBci`, compiler/compilerDefinitions.hpp: bytecode indices are written from it on.
const ENTRY_BCI: i64 = -1;

/// One activation of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) method: u64,
    /// Its entry has none, and stands for its first bytecode.
    pub(super) bci: u32,
}

/// What a piece of compiled code says of its instructions.
#[derive(Clone, Debug, Default)]
pub(super) struct DebugInfo {
    /// `PcDesc[]`
    pub(super) places: Vec<u8>,
    pub(super) place_bytes: usize,
    pub(super) place_pc: usize,
    pub(super) place_scope: usize,
    pub(super) scopes: Vec<u8>,
    /// Pointers, counted from 1.
    pub(super) metadata: Vec<u8>,
    /// Of [`Unsigned5`].
    pub(super) excluded: u8,
}

impl DebugInfo {
    /// The scopes at the instruction `offset` bytes into the code, innermost first. None where no
    /// call returns to it, or what is written there is no scope.
    pub(super) fn at(&self, offset: u32) -> Option<Vec<Scope>> {
        let mut scopes = Vec::new();
        let mut next = self.place(offset)?;
        // Nothing is written at 0: it stands for "none".
        while next != 0 {
            let data = self.scopes.get(next as usize..)?;
            let mut stream = Unsigned5::new(data, self.excluded);
            let outer = stream.unsigned()?;
            let method = (stream.unsigned()? as usize).checked_sub(1)?;
            let bci = i64::from(stream.unsigned()?) + ENTRY_BCI;
            let at = method.checked_mul(8)?;
            self.metadata.get(at..at.checked_add(8)?)?;
            scopes.push(Scope {
                method: u64_at(&self.metadata, at),
                bci: u32::try_from(bci.max(0)).ok()?,
            });
            if scopes.len() > SCOPES_MAX {
                return None;
            }
            next = outer;
        }
        (!scopes.is_empty()).then_some(scopes)
    }

    fn place(&self, offset: u32) -> Option<u32> {
        if self.place_bytes < 8 {
            return None;
        }
        let mut places = self.places.chunks_exact(self.place_bytes);
        let place = places.find(|place| u32_at(place, self.place_pc) == offset)?;
        Some(u32_at(place, self.place_scope))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn info(places: &[u32], scopes: &[u8], methods: &[u64]) -> DebugInfo {
        DebugInfo {
            places: words(places),
            place_bytes: 8,
            place_pc: 0,
            place_scope: 4,
            scopes: scopes.to_vec(),
            metadata: methods.iter().flat_map(|at| at.to_le_bytes()).collect(),
            excluded: 0,
        }
    }

    #[test]
    fn inlined_scopes_come_before_the_one_they_are_in() {
        // At 1 the outer scope, at 4 the one inlined into it.
        let info = info(
            &[u32::MAX, 0, 0x20, 1, 0x40, 4],
            &[0, 0, 1, 8, 1, 2, 0],
            &[0x1000, 0x2000],
        );
        let scope = |method, bci| Scope { method, bci };
        assert_eq!(info.at(0x20), Some(vec![scope(0x1000, 7)]));
        let inlined = vec![scope(0x2000, 0), scope(0x1000, 7)];
        assert_eq!(info.at(0x40), Some(inlined));
        assert_eq!(info.at(0x21), None);
    }

    #[test]
    fn scopes_that_lead_nowhere_are_none() {
        assert_eq!(info(&[4, 1], &[0, 1, 1, 1], &[8]).at(4), None);
        assert_eq!(info(&[4, 1], &[0, 0, 2, 1], &[8]).at(4), None);
        assert_eq!(info(&[4, 1], &[0, 0, 0, 1], &[8]).at(4), None);
        assert_eq!(info(&[4, 9], &[0, 0, 1, 1], &[8]).at(4), None);
        assert_eq!(info(&[4, 0], &[0, 0, 1, 1], &[8]).at(4), None);
    }

    proptest! {
        #[test]
        fn any_scopes_have_an_answer(
            places in prop::collection::vec(0_u32..32, 0..16),
            scopes in prop::collection::vec(any::<u8>(), 0..32),
            methods in prop::collection::vec(any::<u64>(), 0..4),
            offset in 0_u32..32,
        ) {
            let _ = info(&places, &scopes, &methods).at(offset);
        }
    }
}
