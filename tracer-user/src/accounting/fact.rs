//! A fact: one thing that was observed and made a verdict, or kept one from being given.

use std::{fmt, time::Duration};

use crate::clock::age;

/// So many of the outstanding, for at least so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub sockets: u32,
    pub of: u32,
    pub for_at_least: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fact {
    Grows {
        per_minute: f64,
        over: Duration,
    },
    /// What became of those that were open for longer than `older_than`.
    OldStay {
        /// Open, and not used again.
        forsaken: u32,
        /// Open.
        old: u32,
        /// Closed over the time that the growth is told for.
        closed: u64,
        older_than: Duration,
    },
    NothingOld(Duration),
    Reset(Part),
    CloseWait(Part),
    NeverUsed(Part),
    Idle(Part),
    Churns {
        opened_per_minute: f64,
        closed_per_minute: f64,
        over: Duration,
    },
    Between {
        lowest: u32,
        highest: u32,
        over: Duration,
    },
    Closed {
        closed: u32,
        of: u32,
        ago: Duration,
    },
    /// Tracing started too late to judge.
    WatchedBriefly {
        watched: Duration,
        needed: Duration,
    },
    /// Its first connection came too late to judge.
    KnownBriefly {
        known: Duration,
        needed: Duration,
    },
    /// More openers, units or sites than are followed.
    NotFollowed,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let age = |duration: Duration| age(duration.as_secs_f64());
        match *self {
            Self::Grows { per_minute, over } => {
                write!(f, "{per_minute:+.1}/min over {}", age(over))
            }
            Self::OldStay {
                forsaken,
                old,
                closed,
                older_than,
            } => {
                let older = age(older_than);
                match (forsaken == old, closed) {
                    (true, 0) => write!(f, "none of {old} older than {older} was closed or used"),
                    (true, _) => write!(
                        f,
                        "none of {old} older than {older} was used, {closed} were closed"
                    ),
                    (false, _) => write!(
                        f,
                        "{forsaken} of {old} older than {older} were not used again, {closed} were \
                         closed"
                    ),
                }
            }
            Self::NothingOld(older_than) => {
                write!(f, "nothing is older than {} yet", age(older_than))
            }
            Self::Reset(part) => write!(f, "{part} were reset and are not closed"),
            Self::CloseWait(part) => write!(f, "{part} were closed by the server only"),
            Self::NeverUsed(part) => write!(f, "{part} never carried a byte"),
            Self::Idle(part) => write!(f, "{part} carried nothing"),
            Self::Churns {
                opened_per_minute,
                closed_per_minute,
                over,
            } => write!(
                f,
                "{opened_per_minute:.1}/min opened and {closed_per_minute:.1}/min closed over {}",
                age(over)
            ),
            Self::Between {
                lowest,
                highest,
                over,
            } if lowest == highest => write!(f, "always {highest} for {}", age(over)),
            Self::Between {
                lowest,
                highest,
                over,
            } => write!(f, "between {lowest} and {highest} for {}", age(over)),
            Self::Closed { closed, of, ago } => write!(
                f,
                "{closed} of {of} that were open when it looked leaked, {} ago, are closed",
                age(ago)
            ),
            Self::WatchedBriefly { watched, needed } => write!(
                f,
                "watched for {} only, {} are needed",
                age(watched),
                age(needed)
            ),
            Self::KnownBriefly { known, needed } => write!(
                f,
                "its first connection is {} old, {} are needed",
                age(known),
                age(needed)
            ),
            Self::NotFollowed => f.write_str("too many openers, units and sites to follow each"),
        }
    }
}

/// `10 of 12, for 60 s at least,`
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sockets,
            of,
            for_at_least,
        } = self;
        let age = age(for_at_least.as_secs_f64());
        write!(f, "{sockets} of {of} for {age} or longer")
    }
}
