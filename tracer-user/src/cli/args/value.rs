//! Values of arguments, and what is said where they are none.

use std::time::Duration;

pub(super) fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err("a port is a number from 1 to 65535".to_owned()),
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 60s or 5m"))
}

pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < Duration::from_millis(100) {
        return Err("looking more often than every 100ms shows nothing more".to_owned());
    }
    Ok(interval)
}

pub(super) fn stack_bytes(text: &str) -> Result<u32, String> {
    let bytes: u32 = text.parse().map_err(|error| format!("{error}"))?;
    if bytes > 64 * 1024 {
        return Err("more than 65536 bytes are never copied".to_owned());
    }
    Ok(bytes)
}

pub(super) fn ring_bytes(text: &str) -> Result<u32, String> {
    let bytes: u32 = text.parse().map_err(|error| format!("{error}"))?;
    if !bytes.is_power_of_two() || !(4096..=1 << 30).contains(&bytes) {
        return Err("must be a power of two from 4096 to 1073741824".to_owned());
    }
    Ok(bytes)
}
