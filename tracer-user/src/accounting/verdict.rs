//! A verdict: what the past of some sockets and their standing now say, and which facts made it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    fact::Fact,
    growth::Growth,
    rates::{Rate, net_per_minute},
    standing::Standing,
};
use crate::config::Verdicts;

/// Of an opener, a unit or a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It grows, and old ones are neither closed nor used.
    Leaking,
    /// Connections were reset, and the process has not closed them.
    HeldAfterReset,
    /// The server closed connections, and the process has not.
    CloseWait,
    /// No byte went either way since connect.
    NeverUsed,
    /// As many are closed as are opened, and those are many.
    Churning,
    /// It neither grows nor is it used.
    Idle,
    SteadyPool,
    /// What looked leaked was closed.
    Recovered,
}

impl Verdict {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leaking => "leaking",
            Self::HeldAfterReset => "held after reset",
            Self::CloseWait => "close-wait",
            Self::NeverUsed => "never used",
            Self::Churning => "churning",
            Self::Idle => "idle",
            Self::SteadyPool => "steady pool",
            Self::Recovered => "recovered",
        }
    }

    /// Sockets are held that nobody will use again.
    pub const fn is_leak(self) -> bool {
        matches!(self, Self::Leaking | Self::HeldAfterReset | Self::CloseWait)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A verdict with the facts that made it; without one, the facts say why it cannot be given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgement {
    pub verdict: Option<Verdict>,
    pub facts: Vec<Fact>,
}

impl Judgement {
    fn of(verdict: Verdict, facts: impl Into<Vec<Fact>>) -> Self {
        Self {
            verdict: Some(verdict),
            facts: facts.into(),
        }
    }

    fn open(facts: impl Into<Vec<Fact>>) -> Self {
        Self {
            verdict: None,
            facts: facts.into(),
        }
    }
}

/// What looked leaked when it was last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    pub at_ns: u64,
    pub count: u32,
    /// Of those, the ones that looked leaked.
    pub leaked: u32,
}

/// What is judged, and when.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    pub growth: &'a Growth,
    pub standing: Standing,
    pub suspicion: Option<Suspicion>,
    /// Since when every connect and close is known.
    pub watched_since_ns: u64,
    pub now_ns: u64,
}

/// Pure: the same case has the same verdict.
pub fn judge(case: &Case<'_>, rules: &Verdicts) -> Judgement {
    let standing = case.standing;
    let window_ns = nanoseconds(rules.window);
    let net = net_per_minute(case.growth, window_ns, case.now_ns);
    let grows = Fact::Grows {
        per_minute: net,
        over: rules.window,
    };
    // These need no past: how the sockets stand is enough.
    let held = [
        (
            Verdict::HeldAfterReset,
            standing.reset,
            Fact::Reset as fn(_) -> Fact,
        ),
        (
            Verdict::CloseWait,
            standing.close_wait,
            Fact::CloseWait as fn(_) -> Fact,
        ),
    ];
    for (verdict, sockets, fact) in held {
        if is_most(sockets, standing.outstanding) {
            return Judgement::of(verdict, [fact(standing.part(sockets, rules.held_after))]);
        }
    }
    if let Some(facts) = leak(case, rules) {
        return Judgement::of(Verdict::Leaking, facts);
    }
    let known_since_ns = case.watched_since_ns.max(case.growth.since_ns());
    let watched_ns = case.now_ns.saturating_sub(case.watched_since_ns);
    let is_brief = watched_ns < window_ns;
    if !is_brief && let Some(fact) = recovery(case, rules, net) {
        return Judgement::of(Verdict::Recovered, [fact]);
    }
    if is_most(standing.never_used, standing.outstanding) {
        let part = standing.part(standing.never_used, rules.never_used_after);
        return Judgement::of(Verdict::NeverUsed, [Fact::NeverUsed(part)]);
    }
    if is_brief {
        return Judgement::open([Fact::WatchedBriefly {
            watched: duration(watched_ns),
            needed: rules.window,
        }]);
    }
    let rate = Rate::of(case.growth, window_ns, case.now_ns);
    let is_balanced = rate.closed_per_minute * 2.0 >= rate.opened_per_minute;
    if rate.opened_per_minute >= rules.churn_per_minute && is_balanced {
        let fact = Fact::Churns {
            opened_per_minute: rate.opened_per_minute,
            closed_per_minute: rate.closed_per_minute,
            over: rules.window,
        };
        return Judgement::of(Verdict::Churning, [fact]);
    }
    if standing.outstanding == 0 {
        return Judgement::default();
    }
    if net.abs() >= rules.min_growth_per_minute {
        let old = match standing.old {
            0 => Fact::NothingOld(rules.old_after),
            _ => stay(case, rules, window_ns),
        };
        return Judgement::open([grows, old]);
    }
    if is_most(standing.idle, standing.outstanding) {
        let part = standing.part(standing.idle, rules.idle_after);
        return Judgement::of(Verdict::Idle, [Fact::Idle(part)]);
    }
    let known = duration(case.now_ns.saturating_sub(known_since_ns));
    if known < rules.window {
        return Judgement::open([Fact::KnownBriefly {
            known,
            needed: rules.window,
        }]);
    }
    let from_ns = case.now_ns.saturating_sub(window_ns);
    let (lowest, highest) = (
        case.growth.lowest_between(from_ns, case.now_ns),
        case.growth.highest_between(from_ns, case.now_ns),
    );
    let fact = Fact::Between {
        lowest,
        highest,
        over: rules.window,
    };
    match lowest.saturating_mul(2) >= highest {
        true => Judgement::of(Verdict::SteadyPool, [fact]),
        false => Judgement::open([fact]),
    }
}

/// The count rises steadily, and what it rises by is old and forsaken. A pool that warms up stops
/// rising, or uses what it opened.
fn leak(case: &Case<'_>, rules: &Verdicts) -> Option<[Fact; 2]> {
    let window_ns = nanoseconds(rules.window);
    // A slow leak shows over the longer time only.
    [window_ns, 3 * window_ns].into_iter().find_map(|over_ns| {
        let watched_ns = case.now_ns.saturating_sub(case.watched_since_ns);
        let net = net_per_minute(case.growth, over_ns, case.now_ns);
        let gained = net * over_ns as f64 / 60e9;
        let forsaken = case.standing.forsaken;
        let closed_old = case.closed_old(over_ns);
        let found = watched_ns >= over_ns
            && net >= rules.min_growth_per_minute
            && rises_steadily(case.growth, over_ns, case.now_ns)
            && forsaken >= rules.min_forsaken
            && f64::from(forsaken) * 2.0 >= gained
            && closed_old as f64
                <= rules.max_closed_share * (closed_old as f64 + f64::from(forsaken));
        found.then(|| {
            let grows = Fact::Grows {
                per_minute: net,
                over: duration(over_ns),
            };
            [grows, stay(case, rules, over_ns)]
        })
    })
}

/// The lowest count of each third is above that of the third before it, and the count now above
/// all of them.
fn rises_steadily(growth: &Growth, over_ns: u64, now_ns: u64) -> bool {
    let third_ns = over_ns / 3;
    let lowest = [3, 2, 1].map(|back| {
        let from_ns = now_ns.saturating_sub(back * third_ns);
        growth.lowest_between(from_ns, from_ns + third_ns)
    });
    lowest[0] < lowest[1] && lowest[1] < lowest[2] && lowest[2] < growth.count()
}

fn stay(case: &Case<'_>, rules: &Verdicts, over_ns: u64) -> Fact {
    Fact::OldStay {
        forsaken: case.standing.forsaken,
        old: case.standing.old,
        closed: case.closed_old(over_ns),
        older_than: rules.old_after,
    }
}

/// At least half of what looked leaked is gone, and nothing follows it.
fn recovery(case: &Case<'_>, rules: &Verdicts, net: f64) -> Option<Fact> {
    let suspicion = case.suspicion?;
    let ago_ns = case.now_ns.saturating_sub(suspicion.at_ns);
    let closed = suspicion.count.saturating_sub(case.standing.outstanding);
    let recovered = ago_ns <= nanoseconds(rules.recovered_for)
        && closed * 2 >= suspicion.leaked
        && net < rules.min_growth_per_minute;
    recovered.then(|| Fact::Closed {
        closed,
        of: suspicion.count,
        ago: duration(ago_ns),
    })
}

impl Case<'_> {
    fn closed_old(&self, over_ns: u64) -> u64 {
        let from_ns = self.now_ns.saturating_sub(over_ns);
        self.growth.flow_since(from_ns).closed_old
    }
}

fn is_most(part: u32, whole: u32) -> bool {
    part > 0 && u64::from(part) * 2 >= u64::from(whole)
}

fn nanoseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn duration(ns: u64) -> std::time::Duration {
    std::time::Duration::from_nanos(ns)
}
