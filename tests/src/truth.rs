//! What the kernel itself says of sockets, independent of connleak: ss, /proc/net and /proc/PID/fd.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::address;

/// A connection as the two ends of one socket.
pub type Ends = (SocketAddr, SocketAddr);

/// Established sockets of one exact port, as the old command meant them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub both_ends: u64,
    pub client_ends: u64,
}

/// Counts with ss (sock_diag) in this thread's network namespace.
pub fn count(port: u16) -> Result<Count> {
    let both = format!("( sport = :{port} or dport = :{port} )");
    Ok(Count {
        both_ends: ss_lines(&["state", "established", &both])?,
        client_ends: ss_lines(&["state", "established", &format!("( dport = :{port} )")])?,
    })
}

/// Sockets in CLOSE_WAIT on the port, either end.
pub fn close_wait(port: u16) -> Result<u64> {
    ss_lines(&[
        "state",
        "close-wait",
        &format!("( sport = :{port} or dport = :{port} )"),
    ])
}

fn ss_lines(filter: &[&str]) -> Result<u64> {
    let output = Command::new("ss")
        .arg("-Htn")
        .args(filter)
        .output()
        .context("failed to run ss; run `cargo xtask setup`")?;
    ensure!(
        output.status.success(),
        "failed to run ss {filter:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output
        .stdout
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .count() as u64)
}

/// One line of /proc/net/tcp{,6}.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub ends: Ends,
    /// The kernel's word, as connleak reports it.
    pub state: &'static str,
    /// 0 when no process holds the socket (orphan, TIME_WAIT, not yet accepted).
    pub inode: u64,
}

/// Lines of one port out of the text of /proc/net/tcp{,6}.
pub fn lines_with_port(text: &str, port: u16) -> impl Iterator<Item = Line> + '_ {
    // Thousands of TIME_WAITs of other tests may be listed: only these lines are worth parsing.
    let port_digits = format!(":{port:04X} ");
    text.lines()
        .skip(1)
        .filter(move |line| line.contains(&port_digits))
        .filter_map(parse_line)
        .filter(move |line| line.ends.0.port() == port || line.ends.1.port() == port)
}

/// Sockets of the port in the network namespace of process `pid`, listeners left out.
pub fn sockets_seen_by(pid: u32, port: u16) -> Result<Vec<Line>> {
    let mut all = Vec::new();
    for table in ["tcp", "tcp6"] {
        let path = format!("/proc/{pid}/net/{table}");
        match std::fs::read_to_string(&path) {
            Ok(text) => all.extend(lines_with_port(&text, port).filter(|l| l.state != "LISTEN")),
            // A kernel booted without IPv6 has no tcp6.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && table == "tcp6" => {}
            Err(error) => return Err(error).with_context(|| format!("failed to read {path}")),
        }
    }
    Ok(all)
}

/// The same in this process's namespace.
pub fn sockets(port: u16) -> Result<Vec<Line>> {
    sockets_seen_by(std::process::id(), port)
}

/// Sockets of the port that are not yet destroyed, either end. What is left of one in TIME_WAIT is
/// none any more; an end in FIN_WAIT1 is, and counts as closed only when its FIN is acknowledged.
pub fn not_destroyed(port: u16) -> Result<usize> {
    let sockets = sockets(port)?.into_iter();
    Ok(sockets.filter(|line| line.state != "TIME_WAIT").count())
}

/// Socket inode to fds, for one process.
#[must_use]
pub fn socket_fds(pid: u32) -> BTreeMap<u64, BTreeSet<i32>> {
    let mut fds: BTreeMap<u64, BTreeSet<i32>> = BTreeMap::new();
    let Ok(dir) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return fds;
    };
    for entry in dir.flatten() {
        let Ok(target) = std::fs::read_link(entry.path()) else {
            continue;
        };
        let target = target.to_string_lossy();
        let inode = target
            .strip_prefix("socket:[")
            .and_then(|t| t.strip_suffix(']'));
        if let (Some(Ok(inode)), Some(Ok(fd))) = (
            inode.map(str::parse),
            entry.file_name().to_str().map(str::parse),
        ) {
            fds.entry(inode).or_default().insert(fd);
        }
    }
    fds
}

/// Whether a process with this pid exists and is no zombie.
#[must_use]
pub fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| {
        s.rsplit_once(')')
            .is_some_and(|(_, rest)| !rest.starts_with(" Z"))
    })
}

/// The kernel's word for a number of include/net/tcp_states.h.
#[must_use]
pub fn state_word(number: u8) -> Option<&'static str> {
    const WORDS: [&str; 12] = [
        "ESTABLISHED",
        "SYN_SENT",
        "SYN_RECV",
        "FIN_WAIT1",
        "FIN_WAIT2",
        "TIME_WAIT",
        "CLOSE",
        "CLOSE_WAIT",
        "LAST_ACK",
        "LISTEN",
        "CLOSING",
        "NEW_SYN_RECV",
    ];
    WORDS.get(usize::from(number.checked_sub(1)?)).copied()
}

fn parse_line(line: &str) -> Option<Line> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let local = address::parse_hex(fields.get(1)?).ok()?;
    let remote = address::parse_hex(fields.get(2)?).ok()?;
    let state = state_word(u8::from_str_radix(fields.get(3)?, 16).ok()?)?;
    let inode = fields.get(9)?.parse().ok()?;
    Some(Line {
        ends: (local, remote),
        state,
        inode,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_port_is_taken_from_proc_net_tcp() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:18EB 0100007F:A0F2 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 20 4 30 10 -1\n\
            1: 0100007F:F92E 0100007F:A0F2 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1\n";
        let lines: Vec<Line> = lines_with_port(text, 6379).collect();
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0].state, lines[0].inode), ("ESTABLISHED", 4711));
        assert_eq!(lines[0].ends.0.to_string(), "127.0.0.1:6379");
    }
}
