//! Rates: what came, what went and how the count grew, a minute.

use serde::{Deserialize, Serialize};

use super::growth::Growth;

const MINUTE_NS: u64 = 60_000_000_000;
/// Enough that a burst of a third of the time does not move the median.
const SAMPLES: u64 = 20;

/// Over one length of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    pub opened_per_minute: f64,
    pub closed_per_minute: f64,
    /// The trend of the count: what bursts came and went within the time do not count.
    pub net_per_minute: f64,
}

/// Over the last 1, 5 and 15 minutes; null where it was watched for less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    pub over_1_min: Option<Rate>,
    pub over_5_min: Option<Rate>,
    pub over_15_min: Option<Rate>,
}

impl Rates {
    /// Of what is watched since `watched_since_ns`.
    pub fn of(growth: &Growth, watched_since_ns: u64, now_ns: u64) -> Self {
        let over = |minutes: u64| {
            let window_ns = minutes * MINUTE_NS;
            let watched = now_ns.saturating_sub(watched_since_ns) >= window_ns;
            watched.then(|| Rate::of(growth, window_ns, now_ns))
        };
        Self {
            over_1_min: over(1),
            over_5_min: over(5),
            over_15_min: over(15),
        }
    }
}

impl Rate {
    /// Over the `window_ns` before `now_ns`.
    pub fn of(growth: &Growth, window_ns: u64, now_ns: u64) -> Self {
        let minutes = window_ns as f64 / MINUTE_NS as f64;
        let flow = growth.flow_since(now_ns.saturating_sub(window_ns));
        Self {
            opened_per_minute: flow.opened as f64 / minutes,
            closed_per_minute: flow.closed as f64 / minutes,
            net_per_minute: net_per_minute(growth, window_ns, now_ns),
        }
    }
}

/// The median slope between any two of the samples (Theil-Sen): up to a third of them may lie
/// anywhere, and a straight line through the rest is still found.
pub fn net_per_minute(growth: &Growth, window_ns: u64, now_ns: u64) -> f64 {
    let from_ns = now_ns.saturating_sub(window_ns);
    let step_ns = window_ns / SAMPLES;
    let samples: Vec<f64> = (0..=SAMPLES)
        .map(|index| f64::from(growth.count_at(from_ns + index * step_ns)))
        .collect();
    let mut slopes: Vec<f64> = Vec::with_capacity(samples.len() * samples.len() / 2);
    for (index, earlier) in samples.iter().enumerate() {
        for (steps, later) in (1_u32..).zip(&samples[index + 1..]) {
            slopes.push((later - earlier) / f64::from(steps));
        }
    }
    if step_ns == 0 || slopes.is_empty() {
        return 0.0;
    }
    let middle = slopes.len() / 2;
    let (_, median, _) = slopes.select_nth_unstable_by(middle, f64::total_cmp);
    *median * MINUTE_NS as f64 / step_ns as f64
}

/// Seconds until `count` is `target`; `None` where it does not grow there.
pub fn seconds_to(target: u32, count: u32, net_per_minute: f64) -> Option<f64> {
    let missing = f64::from(target.checked_sub(count)?);
    (net_per_minute > 0.0).then(|| missing * 60.0 / net_per_minute)
}
