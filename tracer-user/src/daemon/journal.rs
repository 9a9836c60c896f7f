//! The journal: one line an event, with fields where journald reads them.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

const SOCKET: &str = "/run/systemd/journal/socket";

/// As syslog numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    Critical = 2,
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
}

pub(super) type Field<'a> = (&'static str, &'a str);

/// Where the lines go: journald's own socket when our stderr is the journal, else stderr.
pub(super) struct Journal {
    native: Option<UnixDatagram>,
}

impl Journal {
    pub(super) fn open() -> Self {
        let connect = || {
            let socket = UnixDatagram::unbound().ok()?;
            socket.connect(SOCKET).ok()?;
            // A journal that is stuck must not stop the tracing.
            socket.set_nonblocking(true).ok()?;
            Some(socket)
        };
        Self {
            native: stderr_is_journal().then(connect).flatten(),
        }
    }

    /// `fields` get the prefix CONNLEAK_.
    pub(super) fn say(&self, priority: Priority, message: &str, fields: &[Field<'_>]) {
        if let Some(socket) = &self.native
            && socket.send(&datagram(priority, message, fields)).is_ok()
        {
            return;
        }
        // Where stderr is closed too there is nobody to tell.
        let _ = writeln!(io::stderr(), "connleak: {}", crate::report::clean(message));
    }
}

/// systemd's journal native protocol: KEY=value lines; a value with a newline goes by length.
fn datagram(priority: Priority, message: &str, fields: &[Field<'_>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    let mut put = |key: &str, value: &str| {
        bytes.extend_from_slice(key.as_bytes());
        if value.contains('\n') {
            bytes.push(b'\n');
            bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            bytes.push(b'=');
        }
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(b'\n');
    };
    put("PRIORITY", &(priority as u8).to_string());
    put("SYSLOG_IDENTIFIER", "connleak");
    put("MESSAGE", message);
    let mut key = String::new();
    for (name, value) in fields {
        key.clear();
        // Writing to a String cannot fail.
        let _ = write!(key, "CONNLEAK_{name}");
        put(&key, value);
    }
    bytes
}

/// JOURNAL_STREAM names device and inode of the stream; a redirected stderr is another file.
fn stderr_is_journal() -> bool {
    let Some(stream) = std::env::var("JOURNAL_STREAM").ok() else {
        return false;
    };
    let numbers = stream
        .split_once(':')
        .and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    let Ok(own) = io::stderr().as_fd().try_clone_to_owned() else {
        return false;
    };
    let Ok(metadata) = std::fs::File::from(own).metadata() else {
        return false;
    };
    use std::os::unix::fs::MetadataExt;
    numbers == Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_with_a_newline_goes_by_length() {
        let bytes = datagram(Priority::Warning, "a\nb", &[("UNIT", "x.service")]);
        let expected = b"PRIORITY=4\nSYSLOG_IDENTIFIER=connleak\nMESSAGE\n\
            \x03\0\0\0\0\0\0\0a\nb\nCONNLEAK_UNIT=x.service\n";
        assert_eq!(bytes, expected);
    }
}
