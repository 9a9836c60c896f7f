//! A socket address as every source writes it: ss, /proc/net, connleak, and one form of ours.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};

/// IPv4-mapped IPv6 as IPv4: one connection has a mapped form at one end and a plain one at the
/// other, and sources differ in which they print.
#[must_use]
pub fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Reads `1.2.3.4:5`, `[::1]:5` and `[::ffff:1.2.3.4]:5`, without zone.
pub fn parse(text: &str) -> Result<SocketAddr> {
    let address: SocketAddr = text
        .parse()
        .with_context(|| format!("failed to read socket address {text:?}"))?;
    Ok(plain(address))
}

/// Reads an address of /proc/net/tcp{,6}: hexadecimal words in the machine's byte order.
pub fn parse_hex(text: &str) -> Result<SocketAddr> {
    let (ip, port) = text
        .split_once(':')
        .with_context(|| format!("no port in {text:?}"))?;
    let port = u16::from_str_radix(port, 16)?;
    let word = |at: usize| -> Result<[u8; 4]> {
        let digits = ip
            .get(at..at + 8)
            .with_context(|| format!("short address {text:?}"))?;
        Ok(u32::from_str_radix(digits, 16)?.to_ne_bytes())
    };
    let ip = if ip.len() == 8 {
        IpAddr::from(word(0)?)
    } else {
        let mut bytes = [0u8; 16];
        for (i, four) in bytes.chunks_exact_mut(4).enumerate() {
            four.copy_from_slice(&word(i * 8)?);
        }
        IpAddr::from(bytes)
    };
    Ok(plain(SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_addresses_of_every_family_are_read() {
        let read = |text| parse_hex(text).expect("valid").to_string();
        assert_eq!(read("0100007F:18EB"), "127.0.0.1:6379");
        assert_eq!(read("00000000000000000000000001000000:18EB"), "[::1]:6379");
        assert_eq!(
            read("0000000000000000FFFF00000100007F:18EB"),
            "127.0.0.1:6379"
        );
    }
}
