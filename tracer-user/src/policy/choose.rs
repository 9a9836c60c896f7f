//! The choice of the unit to act on: the one that grows, never merely one that is there.

use std::collections::BTreeMap;

use super::decision::{Blocked, Subject, UnitShare};
use super::observation::{Observation, OpenerCount};
use super::rules::{Rules, Rung};

/// Who holds and who grows under one subject.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shares {
    pub(super) units: BTreeMap<String, UnitShare>,
    pub(super) outside_units_per_minute: f64,
}

impl Shares {
    pub(super) fn of(subject: &Subject, seen: &Observation<'_>) -> Self {
        let belongs = |opener: &&OpenerCount| match subject {
            Subject::Port(port) => opener.port == *port,
            Subject::Unit(unit) => opener.unit.as_ref() == Some(unit),
        };
        let mut shares = Self::default();
        for opener in seen.openers.iter().filter(belongs) {
            match &opener.unit {
                Some(unit) => {
                    let share = shares.units.entry(unit.clone()).or_default();
                    share.outstanding = share.outstanding.saturating_add(opener.outstanding);
                    share.growth_per_minute += opener.growth_per_minute;
                    share.pids.push(opener.pid);
                }
                None => shares.outside_units_per_minute += opener.growth_per_minute.max(0.0),
            }
        }
        if matches!(subject, Subject::Port(_)) {
            shares.outside_units_per_minute += seen.unattributed_growth_per_minute.max(0.0);
        }
        shares
    }

    fn total_growth(&self) -> f64 {
        let units = self
            .units
            .values()
            .map(|unit| unit.growth_per_minute.max(0.0));
        units.sum::<f64>() + self.outside_units_per_minute
    }
}

/// The unit to act on, or why there is none.
pub(super) fn choose(
    shares: &Shares,
    seen: &Observation<'_>,
    rules: &Rules,
) -> Result<String, Blocked> {
    if rules.units.is_empty() {
        return Err(Blocked::NoUnits);
    }
    let total = shares.total_growth();
    let mut growers: Vec<_> = shares
        .units
        .iter()
        .filter(|(_, share)| share.growth_per_minute > rules.min_growth_per_minute)
        .collect();
    growers.sort_by(|(_, a), (_, b)| {
        b.growth_per_minute
            .total_cmp(&a.growth_per_minute)
            .then(b.outstanding.cmp(&a.outstanding))
    });

    let mut first_refusal = None;
    // Growth outside every unit outweighs: restarting a unit beside it would punish the wrong one.
    let largest = growers
        .first()
        .map_or(0.0, |(_, share)| share.growth_per_minute);
    if shares.outside_units_per_minute > largest.max(rules.min_growth_per_minute) {
        first_refusal = Some(Blocked::NotAllowed { unit: None });
    }
    for (unit, share) in growers {
        let refusal = if seen.listeners.contains(unit) {
            Blocked::Listener { unit: unit.clone() }
        } else if let Some(rule) = rules.units.get(unit) {
            if rule.rungs.iter().all(|rung| *rung == Rung::None) {
                Blocked::ObserveOnly { unit: unit.clone() }
            } else if share.growth_per_minute >= rules.min_growth_share * total {
                return Ok(unit.clone());
            } else {
                Blocked::NothingGrows
            }
        } else {
            Blocked::NotAllowed {
                unit: Some(unit.clone()),
            }
        };
        first_refusal.get_or_insert(refusal);
    }
    Err(first_refusal.unwrap_or(Blocked::NothingGrows))
}
