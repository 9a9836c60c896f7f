//! The name of a unit whose processes can be looked for.

/// systemd's own rule (`unit_name_is_valid`), templates without instance excluded.
pub fn check_unit_name(name: &str) -> Result<(), String> {
    const TYPES: [&str; 11] = [
        "service",
        "socket",
        "target",
        "device",
        "mount",
        "automount",
        "swap",
        "timer",
        "path",
        "slice",
        "scope",
    ];
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let Some((stem, suffix)) = name.rsplit_once('.') else {
        return Err(format!(
            "bad unit name \"{name}\": it has no type; \"{name}.service\"?"
        ));
    };
    if !TYPES.contains(&suffix) {
        return Err(format!(
            "bad unit name \"{name}\": \".{suffix}\" is no unit type; \".service\"?"
        ));
    }
    if let Some(bad) = stem.chars().find(|c| !allowed(*c)) {
        return Err(format!(
            "bad unit name \"{name}\": {bad:?} is not allowed in it"
        ));
    }
    if stem.is_empty() || stem.starts_with('@') || name.len() > 255 {
        return Err(format!("bad unit name \"{name}\""));
    }
    if stem.ends_with('@') {
        return Err(format!(
            "bad unit name \"{name}\": a template; name its instance"
        ));
    }
    if !matches!(suffix, "service" | "scope" | "slice") {
        return Err(format!(
            "unit \"{name}\" has no processes: only services, scopes and slices do"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_names_follow_systemd() {
        for name in [
            "a.service",
            "worker@1.service",
            "a-b_c:d.service",
            "x\\x2dy.service",
            "run-1.scope",
        ] {
            assert_eq!(check_unit_name(name), Ok(()), "{name}");
        }
        for name in [
            "",
            "a",
            ".service",
            "a@.service",
            "a/b.service",
            "a.conf",
            "a.timer",
            "@x.service",
        ] {
            assert!(check_unit_name(name).is_err(), "{name}");
        }
    }
}
