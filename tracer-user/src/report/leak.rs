//! A leak: connections that were opened from one line and that nobody closed, as `connleak guard`
//! tells them to people, to a test runner and to a code review.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

use super::{
    clean::clean,
    model::{Report, SiteReport},
};

/// The version of the JSON.
pub const SCHEMA: &str = "connleak.guard/1";

/// What a guarded command left open.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Guarded {
    /// [`SCHEMA`].
    pub schema: &'static str,
    pub command: Vec<String>,
    /// Null where a signal ended it.
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub seconds: f64,
    pub left_open: u64,
    pub max_growth: u64,
    pub passed: bool,
    /// The most connections first.
    pub leaks: Vec<Leak>,
    /// The same by process, in full.
    pub report: Report,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Leak {
    /// Null where no stack, or no application frame in it, is known.
    pub site: Option<SiteReport>,
    pub connections: u64,
    /// `python (4711)`
    pub processes: Vec<String>,
    /// Why there is no site.
    pub note: Option<String>,
}

/// The report's connections by the line that opened them.
pub fn leaks(report: &Report) -> Vec<Leak> {
    let mut by_site: BTreeMap<(Option<SiteReport>, Option<String>), Leak> = BTreeMap::new();
    for opener in &report.openers {
        for stack in &opener.stacks {
            let note = stack.note.clone().filter(|_| stack.site.is_none());
            let leak = by_site
                .entry((stack.site.clone(), note.clone()))
                .or_insert_with(|| Leak {
                    site: stack.site.clone(),
                    connections: 0,
                    processes: Vec::new(),
                    note,
                });
            leak.connections += stack.outstanding;
            let name = opener.name.as_deref().unwrap_or("?");
            let process = match opener.pid {
                Some(pid) => format!("{name} ({pid})"),
                None => name.to_owned(),
            };
            if !leak.processes.contains(&process) {
                leak.processes.push(process);
            }
        }
    }
    let mut leaks: Vec<Leak> = by_site.into_values().collect();
    leaks.sort_by(|a, b| (b.connections, &a.site).cmp(&(a.connections, &b.site)));
    leaks
}

impl Leak {
    /// `3 connections left open by python (4711), opened in get_client`
    fn words(&self) -> String {
        let noun = match self.connections {
            1 => "connection",
            _ => "connections",
        };
        let from = match self.site.as_ref().and_then(|site| site.function.as_deref()) {
            Some(function) => format!(", opened in {function}"),
            None => String::new(),
        };
        let processes = self.processes.join(", ");
        let note = match &self.note {
            Some(note) => format!(" ({note})"),
            None => String::new(),
        };
        format!(
            "{} {noun} left open by {processes}{from}{note}",
            self.connections
        )
    }

    /// `app.py:14 get_client`
    fn name(&self) -> String {
        let Some(site) = &self.site else {
            return "unknown site".to_owned();
        };
        let function = site.function.as_deref().unwrap_or("?");
        match (&site.file, site.line) {
            (Some(file), Some(line)) => format!("{file}:{line} {function}"),
            (Some(file), None) => format!("{file} {function}"),
            (None, _) => function.to_owned(),
        }
    }
}

/// Workflow commands of GitHub: one `::error` a leak, which it shows beside the line of a file
/// below `root`.
pub fn github(leaks: &[Leak], root: &Path) -> String {
    let mut text = String::new();
    for leak in leaks {
        let mut properties = Vec::new();
        if let Some(site) = &leak.site {
            let below = |file: &String| {
                let below = Path::new(file).strip_prefix(root);
                below.map_or_else(|_| file.clone(), |file| file.display().to_string())
            };
            let file = site.file.as_ref().map(below);
            properties.extend(file.map(|file| format!("file={}", property(&file))));
            properties.extend(site.line.map(|line| format!("line={line}")));
        }
        properties.push("title=connection leak".to_owned());
        text.push_str(&format!(
            "::error {}::{}\n",
            properties.join(","),
            message(&leak.words())
        ));
    }
    text
}

/// As the runner reads it back (actions/toolkit, command.ts): what would end the command or its
/// property is escaped. A target chose these names.
fn message(text: &str) -> String {
    clean(text).replace('%', "%25")
}

fn property(text: &str) -> String {
    message(text).replace(':', "%3A").replace(',', "%2C")
}

/// JUnit XML: one test case a leak that fails, or the one that passes.
pub fn junit(guarded: &Guarded) -> String {
    let name = escaped(&guarded.command.join(" "));
    let seconds = guarded.seconds;
    let failures = match guarded.passed {
        true => 0,
        false => guarded.leaks.len(),
    };
    let tests = failures.max(1);
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites name=\"connleak guard\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" \
         time=\"{seconds:.3}\">\n  \
         <testsuite name=\"connections\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" \
         skipped=\"0\" time=\"{seconds:.3}\">\n",
    );
    if guarded.passed {
        text.push_str(&format!(
            "    <testcase name=\"every connection is closed\" classname=\"{name}\" \
             time=\"{seconds:.3}\"/>\n"
        ));
    } else {
        for leak in &guarded.leaks {
            let (case, words) = (escaped(&leak.name()), escaped(&leak.words()));
            text.push_str(&format!(
                "    <testcase name=\"{case}\" classname=\"{name}\" time=\"{seconds:.3}\">\n      \
                 <failure type=\"connection leak\" message=\"{words}\"/>\n    </testcase>\n"
            ));
        }
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

/// For an attribute's value. XML 1.0 has no way at all to write most control characters: cleaning
/// has made them words.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in clean(text).chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            character => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hostile() -> Leak {
        Leak {
            site: Some(SiteReport {
                function: Some("f\"<&>'\n::error::x%0A\x1b[2J".to_owned()),
                file: Some("/a,b:c\n::warning::\u{ffff}.py".to_owned()),
                line: Some(3),
            }),
            connections: 2,
            processes: vec!["]]><x>\u{0}\r".to_owned()],
            note: None,
        }
    }

    #[test]
    fn a_hostile_name_ends_no_workflow_command() {
        let text = github(&[hostile()], Path::new("/srv"));
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.starts_with("::error file=/a%2Cb%3Ac\\n%3A%3Awarning"),
            "{text}"
        );
        assert!(text.contains("x%250A"), "{text}");
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn a_hostile_name_ends_no_attribute() {
        let text = escaped(&hostile().name());
        for forbidden in ['<', '>', '"', '\'', '\n', '\x1b', '\u{ffff}'] {
            assert!(!text.contains(forbidden), "{forbidden:?} in {text}");
        }
        assert!(text.contains("&quot;&lt;&amp;&gt;&apos;"), "{text}");
    }
}
