//! The order of the openers, and which of them a filter lets through.

use std::cmp::Ordering;

use crate::report::model::OpenerReport;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Outstanding,
    Growth,
    Age,
}

impl Order {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Outstanding => Self::Growth,
            Self::Growth => Self::Age,
            Self::Age => Self::Outstanding,
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Outstanding => "by outstanding",
            Self::Growth => "by growth",
            Self::Age => "by age",
        }
    }

    /// The largest first. Equal ones keep one order, or rows would dance at every sample.
    pub(super) fn compare(
        self,
        (a, a_growth): (&OpenerReport, Option<f64>),
        (b, b_growth): (&OpenerReport, Option<f64>),
    ) -> Ordering {
        let known = |value: Option<f64>| value.unwrap_or(f64::NEG_INFINITY);
        let chosen = match self {
            Self::Outstanding => Ordering::Equal,
            Self::Growth => known(b_growth).total_cmp(&known(a_growth)),
            Self::Age => known(b.oldest_age_s).total_cmp(&known(a.oldest_age_s)),
        };
        chosen
            .then(b.outstanding.cmp(&a.outstanding))
            .then(a.pid.cmp(&b.pid))
    }
}

/// Does the opener have `filter` in anything that names it? Letters' case does not matter.
pub(super) fn passes(opener: &OpenerReport, filter: &str) -> bool {
    if filter.is_empty() {
        return true;
    }
    let wanted = filter.to_lowercase();
    let pid = opener.pid.map(|pid| pid.to_string());
    let names = [
        &opener.name,
        &opener.unit,
        &opener.container,
        &opener.user,
        &pid,
    ];
    let mut names = names.into_iter().flatten().chain(&opener.cmdline);
    names.any(|name| name.to_lowercase().contains(&wanted))
}
