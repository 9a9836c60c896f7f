//! Slots bound the labels: so many names have a series, and each keeps its slot for a while.
//!
//! Without the while, names that take turns would each start a series, and a scraper keeps them
//! all. With it, `capacity * (1 + time / hold)` names at most are seen in any time.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Slots<K> {
    capacity: usize,
    hold_ns: u64,
    /// Since when each has its slot.
    taken: HashMap<K, u64>,
}

impl<K: Clone + Eq + Hash + Ord> Slots<K> {
    pub(super) fn new(capacity: usize, hold: Duration) -> Self {
        Self {
            capacity,
            hold_ns: u64::try_from(hold.as_nanos()).unwrap_or(u64::MAX),
            taken: HashMap::new(),
        }
    }

    pub(super) fn has(&self, key: &K) -> bool {
        self.taken.contains_key(key)
    }

    /// Gives the slots to those that have the most to tell, which come first in `wanted`.
    pub(super) fn give(&mut self, wanted: &[K], now_ns: u64) {
        let hold_ns = self.hold_ns;
        let held = |since_ns: u64| now_ns.saturating_sub(since_ns) < hold_ns;
        let known: HashSet<&K> = wanted.iter().collect();
        self.taken
            .retain(|key, since_ns| known.contains(key) || held(*since_ns));
        let first = &wanted[..wanted.len().min(self.capacity)];
        let deserve: HashSet<&K> = first.iter().collect();
        let mut leaving: Vec<K> = self
            .taken
            .iter()
            .filter(|(key, since_ns)| !deserve.contains(key) && !held(**since_ns))
            .map(|(key, _)| key.clone())
            .collect();
        leaving.sort_unstable();
        for key in first {
            if self.has(key) {
                continue;
            }
            if self.taken.len() >= self.capacity {
                match leaving.pop() {
                    Some(gone) => self.taken.remove(&gone),
                    None => break,
                };
            }
            self.taken.insert(key.clone(), now_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;
    const HOLD: Duration = Duration::from_secs(600);

    #[test]
    fn names_that_take_turns_are_bounded_over_time() {
        let mut slots = Slots::new(10, HOLD);
        let mut seen = HashSet::new();
        // 10,000 names within an hour, each the largest when it comes.
        for name in 0..10_000_u64 {
            let now_ns = name * 3600 * SECOND_NS / 10_000;
            let wanted: Vec<u64> = (0..=name).rev().take(40).collect();
            slots.give(&wanted, now_ns);
            seen.extend(slots.taken.keys().copied());
            assert!(slots.taken.len() <= 10);
        }
        assert!(seen.len() <= 10 * (1 + 6), "{}", seen.len());
        assert!(seen.len() > 10, "slots are given on");
    }

    #[test]
    fn who_stays_among_the_first_keeps_the_slot() {
        let mut slots = Slots::new(2, HOLD);
        slots.give(&["a", "b", "c"], 0);
        assert!(slots.has(&"a") && slots.has(&"b") && !slots.has(&"c"));
        slots.give(&["c", "a", "b"], 60 * SECOND_NS);
        assert!(!slots.has(&"c"), "b is held");
        slots.give(&["c", "a", "b"], 601 * SECOND_NS);
        assert!(slots.has(&"c") && slots.has(&"a"));
    }

    #[test]
    fn who_ended_makes_room_after_the_hold() {
        let mut slots = Slots::new(1, HOLD);
        slots.give(&["a"], 0);
        slots.give(&["b"], SECOND_NS);
        assert!(slots.has(&"a"));
        slots.give(&["b"], 600 * SECOND_NS);
        assert!(slots.has(&"b"));
    }
}
