//! A size in the configuration is a number of bytes, or text with a binary unit: "32KiB".

use std::fmt;

use serde::Deserializer;
use serde::de::{Error, Visitor};

const UNITS: [(&str, u64); 4] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("B", 1),
];

pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is no size; write it like \"32KiB\" or \"4MiB\"");
    let unit = UNITS.iter().find_map(|(name, bytes)| {
        let number = text.trim().strip_suffix(name)?;
        Some((number.trim_end(), *bytes))
    });
    let (number, bytes) = unit.unwrap_or((text.trim(), 1));
    let count = number.parse::<u64>().map_err(|_| wrong())?;
    count.checked_mul(bytes).ok_or_else(wrong)
}

struct SizeText;

impl Visitor<'_> for SizeText {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size, like \"32KiB\" or a number of bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        parse(text).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
        u64::try_from(bytes).map_err(|_| E::custom(format!("size {bytes} is negative")))
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    from.deserialize_any(SizeText)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse("32KiB"), Ok(32 << 10));
        assert_eq!(parse("4 MiB"), Ok(4 << 20));
        assert_eq!(parse("512B"), Ok(512));
        assert_eq!(parse("512"), Ok(512));
        for text in ["", "KiB", "4MB", "-1", "1.5MiB", "99999999999GiB"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
