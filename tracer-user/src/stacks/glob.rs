//! A pattern over names where `*` stands for any text; everything else stands for itself.

/// No recursion and no backtracking beyond the last star: patterns come from a config file, names
/// from a hostile target.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at_pattern, mut at_name) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while at_name < name.len() {
        match pattern.get(at_pattern) {
            Some(b'*') => {
                last_star = Some((at_pattern, at_name));
                at_pattern += 1;
            }
            Some(byte) if *byte == name[at_name] => {
                at_pattern += 1;
                at_name += 1;
            }
            _ => {
                let Some((star, taken)) = last_star else {
                    return false;
                };
                last_star = Some((star, taken + 1));
                at_pattern = star + 1;
                at_name = taken + 1;
            }
        }
    }
    pattern[at_pattern..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::matches;

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches("*/libc.so*", "/usr/lib/libc.so.6"));
        assert!(matches("runtime.*", "runtime.goexit"));
        assert!(matches("*", ""));
        assert!(!matches("runtime.*", "myruntime.go"));
        assert!(!matches("*/libc.so*", "/usr/lib/libcurl.so"));
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_every_part_of_it(name in "[a-z./]{1,20}", cut in 0usize..20) {
            let cut = cut.min(name.len());
            let starts = format!("{}*", &name[..cut]);
            let ends = format!("*{}", &name[cut..]);
            prop_assert!(matches(&name, &name));
            prop_assert!(matches(&starts, &name));
            prop_assert!(matches(&ends, &name));
        }
    }
}
