//! Latency over the last 5, 30 and 60 seconds.

use std::collections::VecDeque;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

pub const WINDOWS: [Duration; 3] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// Bounds the samples of one probe: 60 s at the shortest interval, and room.
const MAX_SAMPLES: usize = 1024;
const MAX_US: u64 = 60_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub window_s: u64,
    pub samples: u64,
    pub average_us: f64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

/// One probe's samples. The histogram is filled when it is asked for: a minute of probes is a few
/// hundred samples, three standing histograms would be a hundred times as large.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    /// (when it ended, how long it took); the oldest first.
    samples: VecDeque<(Duration, u64)>,
}

impl Latency {
    /// `now` is time on any clock that only rises.
    pub fn record(&mut self, now: Duration, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(MAX_US);
        if self.samples.len() == MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, took_us.clamp(1, MAX_US)));
        while self
            .samples
            .front()
            .is_some_and(|(at, _)| now.saturating_sub(*at) > WINDOWS[2])
        {
            self.samples.pop_front();
        }
    }

    /// By window; None without a sample in it: no latency is not a latency of zero.
    pub fn summaries(&self, now: Duration) -> [Option<Summary>; 3] {
        // No more samples than a u16 counts, and as precise as the P99 of a thousand can be.
        let Ok(mut histogram) = Histogram::<u16>::new_with_bounds(1, MAX_US, 3) else {
            return [None; 3];
        };
        let mut total_us = 0u64;
        let mut newest = self.samples.iter().rev().peekable();
        // A window has all that the shorter ones have: one histogram serves them in turn.
        WINDOWS.map(|window| {
            while let Some((_, took_us)) =
                newest.next_if(|(at, _)| now.saturating_sub(*at) <= window)
            {
                histogram.saturating_record(*took_us);
                total_us = total_us.saturating_add(*took_us);
            }
            let samples = histogram.len();
            (samples > 0).then(|| Summary {
                window_s: window.as_secs(),
                samples,
                average_us: total_us as f64 / samples as f64,
                p50_us: histogram.value_at_quantile(0.50),
                p99_us: histogram.value_at_quantile(0.99),
                max_us: histogram.max(),
            })
        })
    }
}

/// What a probe should stay below, over one of the windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    pub window: Duration,
    pub average: Option<Duration>,
    pub p99: Option<Duration>,
}

impl Target {
    /// None without samples.
    pub fn is_met(&self, windows: &[Option<Summary>; 3]) -> Option<bool> {
        let mut seen = windows.iter().flatten();
        let seen = seen.find(|it| it.window_s == self.window.as_secs())?;
        let below = |limit: Option<Duration>, us: f64| {
            limit.is_none_or(|limit| us <= limit.as_secs_f64() * 1e6)
        };
        Some(below(self.average, seen.average_us) && below(self.p99, seen.p99_us as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_window_sees_only_its_own_seconds() {
        let mut latency = Latency::default();
        for second in 0..60 {
            let took = Duration::from_micros(if second < 55 { 1000 } else { 200 });
            latency.record(s(second), took);
        }
        let [five, thirty, sixty] = latency.summaries(s(60)).map(|it| it.expect("samples"));
        assert_eq!((five.samples, five.max_us), (5, 200));
        assert_eq!(thirty.samples, 30);
        assert_eq!(sixty.samples, 60);
        assert_eq!(sixty.p50_us, 1000);
        assert!((five.average_us - 200.0).abs() < 1e-9);
        assert!(thirty.average_us > 800.0 && thirty.average_us < 1000.0);
    }

    #[test]
    fn a_percentile_is_that_of_the_samples_within_a_thousandth() {
        let mut latency = Latency::default();
        for sample in 1..=100u64 {
            latency.record(s(1), Duration::from_micros(sample * 100));
        }
        let [five, ..] = latency.summaries(s(1));
        let seen = five.expect("samples");
        assert!(seen.p99_us.abs_diff(9_900) <= 10, "{seen:?}");
        assert!(seen.p50_us.abs_diff(5_000) <= 5, "{seen:?}");
        assert!(seen.max_us.abs_diff(10_000) <= 10, "{seen:?}");
    }

    #[test]
    fn old_samples_are_gone_and_no_sample_is_no_latency() {
        let mut latency = Latency::default();
        latency.record(s(0), s(1));
        assert_eq!(latency.summaries(s(10))[0], None);
        assert!(latency.summaries(s(10))[1].is_some());
        latency.record(s(100), Duration::from_micros(5));
        assert_eq!(latency.samples.len(), 1);
        for _ in 0..5000 {
            latency.record(s(100), Duration::ZERO);
        }
        assert_eq!(latency.samples.len(), MAX_SAMPLES);
    }

    #[test]
    fn a_target_is_met_below_both_its_limits() {
        let mut latency = Latency::default();
        let target = Target {
            window: s(5),
            average: Some(Duration::from_millis(1)),
            p99: Some(Duration::from_millis(4)),
        };
        assert_eq!(target.is_met(&latency.summaries(s(0))), None);
        latency.record(s(0), Duration::from_micros(900));
        assert_eq!(target.is_met(&latency.summaries(s(0))), Some(true));
        latency.record(s(0), Duration::from_micros(9000));
        assert_eq!(target.is_met(&latency.summaries(s(0))), Some(false));
    }
}
