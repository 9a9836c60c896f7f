//! Growth: how much one opener gained, as the policy compares it.

use std::collections::VecDeque;

const SECOND_NS: u64 = 1_000_000_000;
/// Gains of the last minute are what grows now.
const RECENT_NS: u64 = 60 * SECOND_NS;
/// What is remembered to compare with.
const MEMORY_NS: u64 = 600 * SECOND_NS;
/// Changes closer than this are one point.
const SLOT_NS: u64 = 2 * SECOND_NS;
/// A rate over less time than this would be noise.
const LEAST_NS: u64 = 10 * SECOND_NS;

#[derive(Clone, Copy, Debug)]
struct Point {
    at_ns: u64,
    highest: u32,
    last: u32,
}

/// One count and its past, as points where it changed: what does not change costs nothing.
#[derive(Clone, Debug)]
pub struct Growth {
    since_ns: u64,
    /// Never empty; the first is the baseline.
    points: VecDeque<Point>,
}

impl Growth {
    pub fn new(now_ns: u64, baseline: u32) -> Self {
        let first = Point {
            at_ns: now_ns,
            highest: baseline,
            last: baseline,
        };
        Self {
            since_ns: now_ns,
            points: VecDeque::from([first]),
        }
    }

    /// A count found at `now_ns` of a process that had none at `started_ns`: in between it grew,
    /// nobody knows when. Of a process older than the memory nothing is known.
    pub fn found(started_ns: u64, now_ns: u64, count: u32) -> Self {
        if now_ns.saturating_sub(started_ns) >= MEMORY_NS {
            return Self::new(now_ns, count);
        }
        let mut growth = Self::new(started_ns, 0);
        // Not within the last minute, as far as that is possible: it is no record of now.
        growth.set(started_ns.max(now_ns.saturating_sub(RECENT_NS)), count);
        growth
    }

    pub fn count(&self) -> u32 {
        self.points.back().map_or(0, |point| point.last)
    }

    pub fn set(&mut self, now_ns: u64, count: u32) {
        let only_baseline = self.points.len() == 1;
        match self.points.back_mut() {
            Some(last) if !only_baseline && now_ns.saturating_sub(last.at_ns) < SLOT_NS => {
                last.last = count;
                last.highest = last.highest.max(count);
            }
            _ => self.points.push_back(Point {
                at_ns: now_ns,
                highest: count,
                last: count,
            }),
        }
        let horizon = now_ns.saturating_sub(MEMORY_NS);
        // The newest point before the horizon says how much it was there.
        while self.points.get(1).is_some_and(|next| next.at_ns <= horizon) {
            self.points.pop_front();
        }
    }

    /// Sockets came from or went to another owner: neither gain nor loss.
    pub fn shift(&mut self, by: i64) {
        let moved = |count: u32| u32::try_from((i64::from(count) + by).max(0)).unwrap_or(u32::MAX);
        for point in &mut self.points {
            point.highest = moved(point.highest);
            point.last = moved(point.last);
        }
    }

    /// Gains a minute above everything the count had reached before: a pool that breathes does
    /// not grow, a leak sets a new record every minute.
    pub fn recent_per_minute(&self, now_ns: u64) -> f64 {
        let horizon = now_ns.saturating_sub(RECENT_NS);
        let remembered = now_ns.saturating_sub(MEMORY_NS);
        let mut before = self.points.front().map_or(0, |point| point.last);
        for (index, point) in self.points.iter().enumerate() {
            if point.at_ns > horizon {
                break;
            }
            // A record that was already history when the memory began counts as it ended.
            let aged = self
                .points
                .get(index + 1)
                .is_some_and(|next| next.at_ns < remembered);
            before = if aged {
                point.last
            } else {
                before.max(point.highest)
            };
        }
        self.rate(now_ns, before, RECENT_NS)
    }

    /// Gains a minute since the memory began: what has grown, though it stands still now.
    pub fn lasting_per_minute(&self, now_ns: u64) -> f64 {
        let horizon = now_ns.saturating_sub(MEMORY_NS);
        let before = self
            .points
            .iter()
            .take_while(|point| point.at_ns <= horizon)
            .last()
            .or(self.points.front())
            .map_or(0, |point| point.last);
        self.rate(now_ns, before, MEMORY_NS)
    }

    fn rate(&self, now_ns: u64, before: u32, window_ns: u64) -> f64 {
        let known_ns = now_ns.saturating_sub(self.since_ns);
        let span_ns = known_ns.clamp(LEAST_NS, window_ns);
        let gained = f64::from(self.count()) - f64::from(before);
        gained.max(0.0) * 60.0 * SECOND_NS as f64 / span_ns as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_grows_and_a_breathing_pool_does_not() {
        let (mut leak, mut pool) = (Growth::new(0, 0), Growth::new(0, 25));
        for second in 1..=180u32 {
            let now_ns = u64::from(second) * SECOND_NS;
            leak.set(now_ns, second);
            pool.set(now_ns, 25 + (second % 7));
        }
        let now_ns = 180 * SECOND_NS;
        let rate = leak.recent_per_minute(now_ns);
        assert!((55.0..=65.0).contains(&rate), "{rate}");
        assert!(pool.recent_per_minute(now_ns) < f64::EPSILON);
    }

    #[test]
    fn what_stands_still_has_grown_for_a_while() {
        let mut growth = Growth::new(0, 0);
        growth.set(SECOND_NS, 100);
        let now_ns = 200 * SECOND_NS;
        assert!(growth.recent_per_minute(now_ns) < f64::EPSILON);
        assert!(growth.lasting_per_minute(now_ns) > 20.0);
        let later_ns = 700 * SECOND_NS;
        assert!(growth.lasting_per_minute(later_ns) < f64::EPSILON);
    }

    #[test]
    fn sockets_of_another_owner_are_no_growth() {
        let mut growth = Growth::new(0, 0);
        growth.set(SECOND_NS, 1);
        growth.shift(90);
        assert_eq!(growth.count(), 91);
        let rate = growth.recent_per_minute(60 * SECOND_NS);
        assert!((rate - 1.0).abs() < 1e-9, "{rate}");
    }

    #[test]
    fn what_is_found_has_grown_since_its_process_began() {
        let (started_ns, now_ns) = (1000 * SECOND_NS, 1200 * SECOND_NS);
        let growth = Growth::found(started_ns, now_ns, 100);
        assert_eq!(growth.count(), 100);
        assert!(growth.recent_per_minute(now_ns) < f64::EPSILON);
        let rate = growth.lasting_per_minute(now_ns);
        assert!((rate - 30.0).abs() < 1e-9, "{rate}");
        let old = Growth::found(0, now_ns, 100);
        assert!(old.lasting_per_minute(now_ns) < f64::EPSILON);
    }

    #[test]
    fn memory_is_bounded() {
        let mut growth = Growth::new(0, 0);
        for second in 0..10_000u32 {
            growth.set(u64::from(second) * SECOND_NS, second % 3);
        }
        assert!(growth.points.len() <= 302, "{}", growth.points.len());
    }
}
