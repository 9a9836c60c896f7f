//! The exposition is metrics as text, in the two dialects that Prometheus reads.

use std::fmt::Write;

use super::metric::{Family, Kind, Point};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus' own text format 0.0.4: every scraper, and files.
    Text,
    /// OpenMetrics 1.0: what a scraper asks for as `application/openmetrics-text`.
    OpenMetrics,
}

impl Exposition {
    /// The one that an HTTP Accept header asks for.
    pub fn accepted(header: Option<&str>) -> Self {
        let asked = header.is_some_and(|header| header.contains("application/openmetrics-text"));
        if asked { Self::OpenMetrics } else { Self::Text }
    }

    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Writes the families; one without series is left out.
    pub fn page(self, families: &[Family]) -> String {
        let mut page = String::new();
        for family in families.iter().filter(|family| !family.points.is_empty()) {
            // Writing to a String cannot fail.
            let _ = self.put(&mut page, family);
        }
        if self == Self::OpenMetrics {
            page.push_str("# EOF\n");
        }
        page
    }

    fn put(self, page: &mut String, family: &Family) -> std::fmt::Result {
        let ending = match family.kind {
            Kind::Counter => "_total",
            Kind::Gauge => "",
        };
        // OpenMetrics names a counter's family without the ending of its samples.
        let declared = match self {
            Self::OpenMetrics => "",
            Self::Text => ending,
        };
        let Family {
            name, help, unit, ..
        } = family;
        writeln!(page, "# HELP {name}{declared} {help}")?;
        let kind = match family.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        writeln!(page, "# TYPE {name}{declared} {kind}")?;
        if let (Self::OpenMetrics, Some(unit)) = (self, unit) {
            writeln!(page, "# UNIT {name} {unit}")?;
        }
        for Point { labels, value } in &family.points {
            write!(page, "{name}{ending}")?;
            for (index, (label, text)) in labels.iter().enumerate() {
                let opening = if index == 0 { '{' } else { ',' };
                write!(page, "{opening}{label}=\"{}\"", escaped(text))?;
            }
            let closing = if labels.is_empty() { "" } else { "}" };
            writeln!(page, "{closing} {value}")?;
        }
        Ok(())
    }
}

/// A label has no newline: it is cleaned.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn families() -> [Family; 2] {
        let mut opened = Family::counter("connleak_opened_connections", "Opened.");
        opened.point(&[("unit", "a\"b\\c\u{1b}[2J\n"), ("container", "")], 3.0);
        let age = Family::gauge("connleak_oldest_connection_age_seconds", "Age.").only(1.5);
        [opened, age]
    }

    #[test]
    fn openmetrics_names_the_family_without_total_and_tells_units() {
        let expected = r##"# HELP connleak_opened_connections Opened.
# TYPE connleak_opened_connections counter
# UNIT connleak_opened_connections connections
connleak_opened_connections_total{unit="a\"b\\c\\u{1b}[2J\\n"} 3
# HELP connleak_oldest_connection_age_seconds Age.
# TYPE connleak_oldest_connection_age_seconds gauge
# UNIT connleak_oldest_connection_age_seconds seconds
connleak_oldest_connection_age_seconds 1.5
# EOF
"##;
        assert_eq!(Exposition::OpenMetrics.page(&families()), expected);
    }

    #[test]
    fn text_names_the_family_with_total_and_no_units() {
        let page = Exposition::Text.page(&families());
        assert!(page.contains("# TYPE connleak_opened_connections_total counter\n"));
        assert!(
            !page.contains("# UNIT") && !page.contains("# EOF"),
            "{page}"
        );
    }

    #[test]
    fn a_family_without_series_is_left_out() {
        let none = Family::gauge("connleak_manual", "Manual.").only(f64::NAN);
        assert_eq!(Exposition::Text.page(&[none]), "");
    }
}
