//! A template is an argument of a probe's command in which {now} stands for the time.

use std::time::Duration;

use super::duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    /// The Unix time in milliseconds, so much earlier.
    Before(Duration),
}

pub fn parse(argument: &str) -> Result<Vec<Part>, String> {
    let (mut parts, mut rest) = (Vec::new(), argument);
    while let Some(open) = rest.find("{now") {
        let close = rest[open..]
            .find('}')
            .ok_or_else(|| format!("\"{argument}\": no }} after {{now"))?;
        let inside = &rest[open + "{now".len()..open + close];
        let before = match inside.strip_prefix('-') {
            Some(span) => duration::parse(span)?,
            None if inside.is_empty() => Duration::ZERO,
            None => return Err(format!("\"{argument}\": write {{now}} or {{now-5s}}")),
        };
        if open > 0 {
            parts.push(Part::Text(rest[..open].to_owned()));
        }
        parts.push(Part::Before(before));
        rest = &rest[open + close + 1..];
    }
    if !rest.is_empty() || parts.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// The argument at one moment, given as time since the Unix epoch.
pub fn render(parts: &[Part], now: Duration) -> String {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Text(part) => text.push_str(part),
            Part::Before(span) => text.push_str(&now.saturating_sub(*span).as_millis().to_string()),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_is_replaced_by_milliseconds() {
        let now = Duration::from_millis(1_700_000_010_500);
        let render = |argument| render(&parse(argument).expect(argument), now);
        assert_eq!(render("{now}"), "1700000010500");
        assert_eq!(render("({now-5s}"), "(1700000005500");
        assert_eq!(render("{now-1m}-{now}"), "1699999950500-1700000010500");
        assert_eq!(render("{tag}"), "{tag}");
        assert_eq!(render(""), "");
    }

    #[test]
    fn a_broken_template_is_an_error() {
        for argument in ["{now", "{now+5s}", "{now-5}", "{nowish}"] {
            assert!(parse(argument).is_err(), "{argument}");
        }
    }
}
