//! Rust source read just far enough to know which paths it names, and on which line.

/// A path such as `crate::sockets::table`, groups of `use` already taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedPath {
    pub(super) line: usize,
    pub(super) segments: Vec<String>,
    /// In a `use`, one segment alone is a path too.
    pub(super) imported: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    PathSeparator,
    Other(char),
}

/// The paths that production code names: what stands under `#[cfg(test)]` may look anywhere.
pub(super) fn named_paths(source: &str) -> Vec<NamedPath> {
    let tokens = without_tests(tokens(source));
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let imported = at > 0 && matches!(&tokens[at - 1].1, Token::Word(word) if word == "use");
        let rooted = imported && tokens[at].1 == Token::PathSeparator;
        let starts = match &tokens[at].1 {
            Token::Word(_) => at == 0 || tokens[at - 1].1 != Token::Other('.'),
            _ => rooted || (imported && tokens[at].1 == Token::Other('{')),
        };
        if starts {
            at = path(&tokens, at, &mut Vec::new(), imported, &mut paths);
        } else {
            at += 1;
        }
    }
    paths
}

/// The modules declared `#[cfg(test)] mod NAME;`: their files are tests.
pub(super) fn test_modules(source: &str) -> Vec<String> {
    let tokens = tokens(source);
    let mut names = Vec::new();
    for at in 0..tokens.len() {
        let Some(end) = test_attribute(&tokens, at) else {
            continue;
        };
        let word = |at: usize| match tokens.get(at) {
            Some((_, Token::Word(word))) => Some(word.as_str()),
            _ => None,
        };
        let ends = tokens.get(end + 2).map(|token| &token.1) == Some(&Token::Other(';'));
        if let (Some("mod"), Some(name), true) = (word(end), word(end + 1), ends) {
            names.push(name.to_owned());
        }
    }
    names
}

/// Reads one path from `at`, with every branch of its groups; returns where it ends.
fn path(
    tokens: &[(usize, Token)],
    mut at: usize,
    prefix: &mut Vec<String>,
    imported: bool,
    paths: &mut Vec<NamedPath>,
) -> usize {
    let begun = prefix.len();
    let line = tokens.get(at).map_or(0, |token| token.0);
    if tokens.get(at).map(|token| &token.1) == Some(&Token::PathSeparator) {
        at += 1;
    }
    loop {
        match tokens.get(at).map(|token| &token.1) {
            Some(Token::Word(word)) => prefix.push(word.clone()),
            Some(Token::Other('{')) if imported => {
                at += 1;
                while at < tokens.len() && tokens[at].1 != Token::Other('}') {
                    at = match &tokens[at].1 {
                        Token::Word(_) | Token::PathSeparator | Token::Other('{') => {
                            path(tokens, at, prefix, imported, paths)
                        }
                        Token::Other(_) => at + 1,
                    };
                }
                prefix.truncate(begun);
                return at + 1;
            }
            // A glob, or the `<` of a turbofish: the path so far is what counts.
            _ => break,
        }
        at += 1;
        if tokens.get(at).map(|token| &token.1) != Some(&Token::PathSeparator) {
            break;
        }
        at += 1;
    }
    if imported && tokens.get(at).map(|token| &token.1) == Some(&Token::Word("as".to_owned())) {
        at += 2;
    }
    paths.push(NamedPath {
        line,
        segments: prefix.clone(),
        imported,
    });
    prefix.truncate(begun);
    at
}

/// Words and path separators with their lines; comments and literals are skipped.
fn tokens(source: &str) -> Vec<(usize, Token)> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let next = chars.get(at + 1).copied();
        let end = match (chars[at], next) {
            ('/', Some('/')) => until(&chars, at, |chars, at| chars[at] == '\n'),
            ('/', Some('*')) => block_comment(&chars, at),
            ('"', _) => string(&chars, at),
            ('\'', _) => quote(&chars, at),
            (':', Some(':')) => {
                tokens.push((line, Token::PathSeparator));
                at + 2
            }
            (char, _) if char.is_alphanumeric() || char == '_' => {
                let end = until(&chars, at, |chars, at| {
                    !chars[at].is_alphanumeric() && chars[at] != '_'
                });
                let word: String = chars[at..end].iter().collect();
                match raw_string(&chars, &word, end) {
                    Some(end) => end,
                    None => {
                        tokens.push((line, Token::Word(word)));
                        end
                    }
                }
            }
            (char, _) => {
                if !char.is_whitespace() {
                    tokens.push((line, Token::Other(char)));
                }
                at + 1
            }
        };
        line += chars[at..end].iter().filter(|char| **char == '\n').count();
        at = end;
    }
    tokens
}

fn until(chars: &[char], from: usize, stop: impl Fn(&[char], usize) -> bool) -> usize {
    (from..chars.len())
        .find(|at| stop(chars, *at))
        .unwrap_or(chars.len())
}

fn block_comment(chars: &[char], from: usize) -> usize {
    let mut depth = 0;
    let mut at = from;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => depth += 1,
            ('*', Some('/')) => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(chars: &[char], from: usize) -> usize {
    let mut at = from + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// A character literal, or the apostrophe of a lifetime.
fn quote(chars: &[char], from: usize) -> usize {
    match (chars.get(from + 1), chars.get(from + 2)) {
        (Some('\\'), Some(_)) => until(chars, from + 3, |chars, at| chars[at] == '\'') + 1,
        (Some(_), Some('\'')) => from + 3,
        _ => from + 1,
    }
    .min(chars.len())
}

/// The end of a raw string whose prefix ends at `from`.
fn raw_string(chars: &[char], prefix: &str, from: usize) -> Option<usize> {
    if !matches!(prefix, "r" | "br" | "cr") {
        return None;
    }
    let open = until(chars, from, |chars, at| chars[at] != '#');
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let hashes = open - from;
    let close = |chars: &[char], at: usize| {
        chars[at] == '"' && (1..=hashes).all(|more| chars.get(at + more) == Some(&'#'))
    };
    Some((until(chars, open + 1, close) + 1 + hashes).min(chars.len()))
}

/// Takes out every item under `#[cfg(test)]` or `#[cfg(all(test, ...))]`.
fn without_tests(tokens: Vec<(usize, Token)>) -> Vec<(usize, Token)> {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        if let Some(end) = test_attribute(&tokens, at) {
            at = item_end(&tokens, end);
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// The end of `#[cfg(test)]`, if that is what stands at `at`.
fn test_attribute(tokens: &[(usize, Token)], at: usize) -> Option<usize> {
    let is = |offset: usize, token: &Token| tokens.get(at + offset).map(|t| &t.1) == Some(token);
    let word = |text: &str| Token::Word(text.to_owned());
    let opens = is(0, &Token::Other('#')) && is(1, &Token::Other('[')) && is(2, &word("cfg"));
    if !opens {
        return None;
    }
    let end = at + tokens[at..].iter().position(|t| t.1 == Token::Other(']'))?;
    let names = &tokens[at..end];
    let says = |text: &str| names.iter().any(|t| t.1 == word(text));
    (says("test") && !says("not") && !says("any")).then_some(end + 1)
}

/// Behind the item that starts at `at`: its block, or its semicolon.
fn item_end(tokens: &[(usize, Token)], mut at: usize) -> usize {
    let mut depth = 0;
    while at < tokens.len() {
        match tokens[at].1 {
            Token::Other('{' | '(' | '[') => depth += 1,
            Token::Other(')' | ']') => depth -= 1,
            Token::Other('}') => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            Token::Other(';') if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(source: &str) -> Vec<String> {
        named_paths(source)
            .into_iter()
            .filter(|path| path.segments.len() > 1 || path.imported)
            .map(|path| format!("{} {}", path.line, path.segments.join("::")))
            .collect()
    }

    #[test]
    fn groups_are_taken_apart() {
        assert_eq!(
            paths("use crate::{\n    a::B,\n    c::{D as X, self},\n};\nuse aya;"),
            [
                "2 crate::a::B",
                "3 crate::c::D",
                "3 crate::c::self",
                "5 aya"
            ]
        );
    }

    #[test]
    fn paths_in_expressions_count() {
        assert_eq!(
            paths("fn f<'a>(x: &'a crate::a::T) { x.y(crate::b::<u8>::c()) }"),
            ["1 crate::a::T", "1 crate::b"]
        );
    }

    #[test]
    fn comments_and_literals_do_not_count() {
        let source = "// crate::a\n/* crate::b /* x */ crate::c */\nlet s = \"crate::d\\\" crate::e\";\n\
                      let r = r#\"crate::f \" \"#; let q = '\"'; crate::g::h();";
        assert_eq!(paths(source), ["4 crate::g::h"]);
    }

    #[test]
    fn tests_do_not_count() {
        let source = "#[cfg(test)]\nmod tests { use crate::a::B; fn f() {} }\n\
                      #[cfg(test)] use crate::c;\n#[cfg(not(test))] use crate::d::E;";
        assert_eq!(paths(source), ["4 crate::d::E"]);
    }

    #[test]
    fn test_modules_in_files_of_their_own_are_found() {
        let source = "mod a;\n#[cfg(test)]\nmod property;\n#[cfg(test)]\nmod tests { fn f() {} }";
        assert_eq!(test_modules(source), ["property"]);
    }

    #[test]
    fn a_use_in_a_group_without_prefix_counts() {
        assert_eq!(
            paths("use {crate::a, ::aya::Ebpf};"),
            ["1 crate::a", "1 aya::Ebpf"]
        );
    }
}
