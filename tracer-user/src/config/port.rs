//! A port in the configuration is a whole number from 1 to 65535.

use std::fmt;

use serde::Deserializer;
use serde::de::{Error, Visitor};

struct PortNumber;

impl Visitor<'_> for PortNumber {
    type Value = u16;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port from 1 to 65535")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u16, E> {
        u16::try_from(number)
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| E::custom(format!("port {number} is out of range: 1 to 65535")))
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    from.deserialize_i64(PortNumber)
}
