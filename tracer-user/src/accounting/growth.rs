//! Growth: one count and its past, as the policy and the verdicts compare it.

use std::collections::VecDeque;

const SECOND_NS: u64 = 1_000_000_000;
/// Gains of the last minute are what grows now.
const RECENT_NS: u64 = 60 * SECOND_NS;
/// What the policy compares with.
const MEMORY_NS: u64 = 600 * SECOND_NS;
/// What is kept: the longest time that a rate is told over.
pub(super) const KEPT_NS: u64 = 900 * SECOND_NS;
/// Changes closer than this are one point,
const SLOT_NS: u64 = SECOND_NS;
/// and than this, once they are no longer recent.
const OLD_SLOT_NS: u64 = 10 * SECOND_NS;
/// A rate over less time than this would be noise.
const LEAST_NS: u64 = 10 * SECOND_NS;

/// The count as it was from this time on, and all that was opened and closed until its end.
#[derive(Clone, Copy, Debug, Default)]
struct Point {
    at_ns: u64,
    highest: u32,
    last: u32,
    flow: Flow,
}

/// What came and went since the count was first known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    pub opened: u64,
    pub closed: u64,
    /// Of the closed, the ones that had lived long.
    pub closed_old: u64,
}

impl Flow {
    fn since(self, before: Self) -> Self {
        Self {
            opened: self.opened.saturating_sub(before.opened),
            closed: self.closed.saturating_sub(before.closed),
            closed_old: self.closed_old.saturating_sub(before.closed_old),
        }
    }
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
            flow: Flow::default(),
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
        self.latest().last
    }

    /// Since when it is known.
    pub fn since_ns(&self) -> u64 {
        self.since_ns
    }

    /// When the count last changed.
    pub fn changed_ns(&self) -> u64 {
        self.latest().at_ns
    }

    fn latest(&self) -> Point {
        self.points.back().copied().unwrap_or_default()
    }

    pub fn set(&mut self, now_ns: u64, count: u32) {
        self.change(now_ns, |point| point.last = count);
    }

    /// One socket more.
    pub fn open(&mut self, now_ns: u64) {
        self.change(now_ns, |point| {
            point.last = point.last.saturating_add(1);
            point.flow.opened += 1;
        });
    }

    /// One socket less.
    pub fn close(&mut self, now_ns: u64, was_old: bool) {
        self.change(now_ns, |point| {
            point.last = point.last.saturating_sub(1);
            point.flow.closed += 1;
            point.flow.closed_old += u64::from(was_old);
        });
    }

    /// So many sockets came and went, one after the other: the count never stood higher by more
    /// than one.
    pub fn pass(&mut self, now_ns: u64, sockets: u32) {
        self.change(now_ns, |point| {
            point.highest = point.highest.max(point.last.saturating_add(1));
            point.flow.opened += u64::from(sockets);
            point.flow.closed += u64::from(sockets);
        });
    }

    fn change(&mut self, now_ns: u64, change: impl FnOnce(&mut Point)) {
        let latest = self.latest();
        let only_baseline = self.points.len() == 1;
        if only_baseline || now_ns.saturating_sub(latest.at_ns) >= SLOT_NS {
            self.points.push_back(Point {
                at_ns: now_ns.max(latest.at_ns),
                highest: 0,
                ..latest
            });
            self.thin(now_ns);
        }
        if let Some(point) = self.points.back_mut() {
            change(point);
            point.highest = point.highest.max(point.last);
        }
    }

    fn thin(&mut self, now_ns: u64) {
        let horizon = now_ns.saturating_sub(KEPT_NS);
        // The newest point before the horizon says how much it was there.
        while self.points.get(1).is_some_and(|next| next.at_ns <= horizon) {
            self.points.pop_front();
        }
        let recent = now_ns.saturating_sub(RECENT_NS);
        let mut index = 1;
        while let (Some(point), Some(next)) = (self.points.get(index), self.points.get(index + 1))
            && next.at_ns <= recent
        {
            if next.at_ns - point.at_ns >= OLD_SLOT_NS {
                index += 1;
                continue;
            }
            let merged = Point {
                at_ns: point.at_ns,
                highest: point.highest.max(next.highest),
                ..*next
            };
            self.points[index] = merged;
            self.points.remove(index + 1);
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

    /// The count at `at_ns`; before it was known, what it was when it was first known.
    pub fn count_at(&self, at_ns: u64) -> u32 {
        self.at(at_ns).map_or(0, |point| point.last)
    }

    /// What came and went after `since_ns`.
    pub fn flow_since(&self, since_ns: u64) -> Flow {
        let before = self.at(since_ns).map(|point| point.flow);
        self.latest().flow.since(before.unwrap_or_default())
    }

    /// The highest count after `from_ns`, up to and with `to_ns`.
    pub fn highest_between(&self, from_ns: u64, to_ns: u64) -> u32 {
        let within = self.points.iter();
        let within = within.filter(|point| from_ns < point.at_ns && point.at_ns <= to_ns);
        within
            .map(|point| point.highest)
            .fold(self.count_at(from_ns), u32::max)
    }

    /// The lowest count that stood at the end of a point in that time.
    pub fn lowest_between(&self, from_ns: u64, to_ns: u64) -> u32 {
        let within = self.points.iter();
        let within = within.filter(|point| from_ns < point.at_ns && point.at_ns <= to_ns);
        within
            .map(|point| point.last)
            .fold(self.count_at(from_ns), u32::min)
    }

    fn at(&self, at_ns: u64) -> Option<&Point> {
        let after = self.points.partition_point(|point| point.at_ns <= at_ns);
        self.points.get(after.saturating_sub(1))
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
        // 60 recent slots, and 84 old ones of which each may be a point short of two slots.
        assert!(growth.points.len() <= 232, "{}", growth.points.len());
    }
}
