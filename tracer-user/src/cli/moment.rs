//! A moment as people write it: `1h` ago, `14:30`, or RFC 3339; a window lies between two.

use std::time::Duration;

use jiff::{Timestamp, ToSpan, civil::Time, tz::Offset};

use crate::history::Window;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    Ago(Duration),
    /// UTC, the last time it was that late.
    Clock(Time),
    At(Timestamp),
}

/// # Errors
///
/// It is none of the three.
pub(super) fn parse(text: &str) -> Result<Moment, String> {
    let wrong =
        || format!("\"{text}\" is no moment; write 1h (ago), 14:30 (UTC) or 2026-01-31T14:30:00Z");
    if text == "now" {
        return Ok(Moment::Ago(Duration::ZERO));
    }
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(Moment::Ago(ago));
    }
    if let Ok(at) = text.parse() {
        return Ok(Moment::At(at));
    }
    let clock = Time::strptime("%H:%M:%S", text).or_else(|_| Time::strptime("%H:%M", text));
    clock.map(Moment::Clock).map_err(|_| wrong())
}

impl Moment {
    pub(super) fn seconds(self, now: Timestamp) -> i64 {
        match self {
            Self::Ago(ago) => {
                let ago_s = i64::try_from(ago.as_secs()).unwrap_or(i64::MAX);
                now.as_second().saturating_sub(ago_s)
            }
            Self::At(at) => at.as_second(),
            Self::Clock(time) => {
                let today = Offset::UTC.to_datetime(now).date().to_datetime(time);
                let at = Offset::UTC.to_timestamp(today).unwrap_or(now);
                let at = if at > now { at - 24.hours() } else { at };
                at.as_second()
            }
        }
    }
}

/// From `since` until now, or between two moments in either order.
pub(super) fn window(since: Moment, until: Moment, now: Timestamp) -> Window {
    let (a, b) = (since.seconds(now), until.seconds(now));
    Window {
        since_s: a.min(b),
        until_s: a.max(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> i64 {
        let now: Timestamp = "2026-01-31T14:00:00Z".parse().expect("a time");
        parse(text).expect(text).seconds(now) - now.as_second()
    }

    #[test]
    fn moments_are_spans_clocks_or_dates() {
        assert_eq!(seconds("1h"), -3600);
        assert_eq!(seconds("1h30m"), -5400);
        assert_eq!(seconds("now"), 0);
        assert_eq!(seconds("13:30"), -1800);
        assert_eq!(seconds("13:30:30"), -1770);
        assert_eq!(seconds("14:30"), 1800 - 86_400);
        assert_eq!(seconds("2026-01-31T13:00:00Z"), -3600);
        assert_eq!(seconds("2026-01-31T13:00:00+01:00"), -7200);
        for text in ["", "yesterday", "25:00", "2026-01-31", "12", "-1h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
