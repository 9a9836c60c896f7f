//! Cleaning: text that a traced process chose must not steer the terminal that shows it.

/// `text` with control characters, and the marks that turn writing round, shown as escapes.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for character in text.chars() {
        if steers_terminals(character) {
            cleaned.extend(character.escape_default());
        } else {
            cleaned.push(character);
        }
    }
    cleaned
}

/// Does a terminal obey it instead of showing it?
pub(super) fn steers_terminals(character: char) -> bool {
    character.is_control() || is_formatting(character)
}

/// Bidirectional overrides and isolates, zero-width and line separators (Unicode TR 36).
fn is_formatting(character: char) -> bool {
    matches!(
        character,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn escape_sequences_are_shown_and_not_obeyed() {
        assert_eq!(clean("\x1b[2Jred\r\n"), "\\u{1b}[2Jred\\r\\n");
        assert_eq!(clean("a\u{202e}b\u{9b}c"), "a\\u{202e}b\\u{9b}c");
        assert_eq!(clean("größe 日本"), "größe 日本");
    }
}
