//! JSON: what is reported, for programs, as one object.

use std::fmt::Write;

use serde::Serialize;

use super::clean::steers_terminals;

/// # Errors
///
/// A value that JSON cannot hold; there is none in a report.
pub fn json(report: &impl Serialize) -> serde_json::Result<String> {
    let mut text = harmless(&serde_json::to_string_pretty(report)?);
    text.push('\n');
    Ok(text)
}

/// One object on one line.
///
/// # Errors
///
/// As [`json`].
pub fn json_line(object: &impl Serialize) -> serde_json::Result<String> {
    let mut text = harmless(&serde_json::to_string(object)?);
    text.push('\n');
    Ok(text)
}

/// Escapes what JSON allows raw but a terminal obeys: DEL, the C1 controls, bidirectional marks.
/// Outside strings JSON has ASCII alone, so every one of them stands in a string.
fn harmless(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character > '\u{7e}' && steers_terminals(character) {
            // None of them lies beyond 16 bits. Writing to a String cannot fail.
            let _ = write!(text, "\\u{:04x}", u32::from(character));
        } else {
            text.push(character);
        }
    }
    text
}

/// As [`json`], of what is no report.
///
/// # Errors
///
/// A value that JSON cannot hold.
pub fn json_of(object: &impl serde::Serialize) -> serde_json::Result<String> {
    Ok(harmless(&serde_json::to_string_pretty(object)?) + "\n")
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn controls_that_json_allows_are_escaped_and_mean_the_same() {
        let raw = "{\n\"a\": \"\u{9b}2J\u{7f}\u{202e}ü\"}";
        let escaped = harmless(raw);
        assert_eq!(escaped, "{\n\"a\": \"\\u009b2J\\u007f\\u202eü\"}");
        let of = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("it is JSON");
        assert_eq!(of(raw), of(&escaped));
    }
}
