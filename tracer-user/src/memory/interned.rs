//! Interned values: of equal ones, one allocation for all who have them.

use std::{collections::HashSet, hash::Hash, sync::Arc};

/// Fewer are not worth a sweep.
const SWEEP_ABOVE: usize = 256;

/// The values that somebody has, and some that nobody has any more.
#[derive(Debug)]
pub struct Interned<T> {
    known: HashSet<Arc<T>>,
    /// Those that nobody has are looked for when there are more than this: twice as many as were
    /// in use the last time, so that looking costs each new value no more than a constant.
    sweep_above: usize,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self {
            known: HashSet::new(),
            sweep_above: SWEEP_ABOVE,
        }
    }
}

impl<T: Clone + Eq + Hash> Interned<T> {
    /// The one allocation of a value equal to `value`.
    pub fn same(&mut self, value: &T) -> Arc<T> {
        if let Some(known) = self.known.get(value) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.sweep_above {
            self.known.retain(|value| Arc::strong_count(value) > 1);
            self.known.shrink_to(2 * self.known.len());
            self.sweep_above = (2 * self.known.len()).max(SWEEP_ABOVE);
        }
        let value = Arc::new(value.clone());
        self.known.insert(Arc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one() {
        let mut interned = Interned::default();
        let (a, b) = (interned.same(&7), interned.same(&7));
        assert!(Arc::ptr_eq(&a, &b));
        assert_eq!((*a, *interned.same(&8)), (7, 8));
    }

    #[test]
    fn values_that_nobody_has_are_forgotten_and_others_stay() {
        let mut interned = Interned::default();
        let kept = interned.same(&0);
        for value in 1..100_000 {
            interned.same(&value);
            assert!(interned.known.len() <= SWEEP_ABOVE);
        }
        assert!(Arc::ptr_eq(&kept, &interned.same(&0)));
    }
}
