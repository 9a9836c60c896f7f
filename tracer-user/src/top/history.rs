//! The history: the levels of the last samples, and how each opener grew over them.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::sample::{OpenerKey, Sample};
use crate::{policy::level::Level, report::model::OpenerReport};

/// As many columns as a wide terminal has.
const LEVELS_MAX: usize = 512;
/// Growth is told over this long,
const RECENT: Duration = Duration::from_secs(60);
/// and over no less, or one connection more would seem a storm.
const LEAST: Duration = Duration::from_secs(10);

/// The count that levels look at, and its level, at one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LevelPoint {
    pub(super) count: u32,
    pub(super) level: Level,
}

#[derive(Debug, Default)]
pub(super) struct History {
    /// The newest last.
    levels: VecDeque<LevelPoint>,
    openers: HashMap<OpenerKey, VecDeque<(Duration, u64)>>,
    last: Option<Duration>,
}

impl History {
    /// Takes over a sample; its openers' growth in the order of its report.
    pub(super) fn take(&mut self, sample: &Sample) -> Vec<Option<f64>> {
        self.levels.push_back(LevelPoint {
            count: sample.count,
            level: sample.level,
        });
        if self.levels.len() > LEVELS_MAX {
            self.levels.pop_front();
        }
        let mut before = std::mem::take(&mut self.openers);
        let (at, last) = (sample.at, self.last.replace(sample.at));
        let openers = sample.report.openers.iter();
        openers
            .map(|opener| {
                let key = OpenerKey::of(opener);
                let mut past = before.remove(&key).unwrap_or_else(|| {
                    // It had nothing when it was last looked for.
                    last.map(|last| (last, 0)).into_iter().collect()
                });
                past.push_back((at, opener.outstanding));
                while past.get(1).is_some_and(|next| next.0 + RECENT <= at) {
                    past.pop_front();
                }
                let growth = told(opener).or_else(|| per_minute(&past));
                self.openers.insert(key, past);
                growth
            })
            .collect()
    }

    pub(super) fn levels(&self) -> &VecDeque<LevelPoint> {
        &self.levels
    }
}

/// What the report says of the last minute, where it was watched for so long: bursts that came and
/// went do not move that.
fn told(opener: &OpenerReport) -> Option<f64> {
    let rates = opener.trend.rates?;
    Some(rates.over_1_min?.net_per_minute)
}

/// `None` while there is nothing to compare with.
fn per_minute(past: &VecDeque<(Duration, u64)>) -> Option<f64> {
    let (&(since, before), &(now, count)) = (past.front()?, past.back()?);
    let watched = now.checked_sub(since).filter(|it| !it.is_zero())?;
    let minutes = watched.max(LEAST).as_secs_f64() / 60.0;
    Some((count as f64 - before as f64) / minutes)
}
