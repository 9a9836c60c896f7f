//! A line of the table: what is said of one process, one socket, one frame.

use std::{fmt::Write, net::SocketAddr};

use anstyle::{AnsiColor, Style as Paint};

use super::super::clean::clean;
use super::super::model::{OpenerReport, SocketReport};
use crate::accounting::Verdict;
use crate::clock::{age, push_age};
use crate::stacks::Frame;

/// Red is what somebody must look at.
pub(super) fn verdict_paint(verdict: Verdict) -> Paint {
    match verdict {
        Verdict::Leaking | Verdict::HeldAfterReset | Verdict::CloseWait => {
            AnsiColor::Red.on_default().bold()
        }
        Verdict::NeverUsed | Verdict::Churning | Verdict::Idle => AnsiColor::Yellow.on_default(),
        Verdict::SteadyPool | Verdict::Recovered => AnsiColor::Green.on_default(),
    }
}

pub(super) fn connections(outstanding: u64) -> &'static str {
    if outstanding == 1 {
        "connection"
    } else {
        "connections"
    }
}

pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

pub(super) fn row(columns: [&str; 7]) -> String {
    let [pid, outstanding, opened, closed, oldest, user, name] = columns;
    format!(
        "{pid:>7}  {outstanding:>11}  {opened:>7}  {closed:>7}  {oldest:>8}  {user:<12}  {name}"
    )
}

pub(super) fn headline(opener: &OpenerReport) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let name = match (&opener.name, opener.pid) {
        (Some(name), _) => clean(name),
        (None, Some(_)) => "?".to_owned(),
        (None, None) => "unattributed".to_owned(),
    };
    let ended = if opener.ended { " (ended)" } else { "" };
    row([
        &number(opener.pid.map(u64::from)),
        &opener.outstanding.to_string(),
        &number(opener.opened),
        &number(opener.closed),
        &opener.oldest_age_s.map_or_else(|| "-".to_owned(), age),
        &clean(opener.user.as_deref().unwrap_or("-")),
        &format!("{name}{ended}"),
    ])
}

/// One socket with its holders.
pub fn socket_line(socket: &SocketReport) -> String {
    let mut line = String::new();
    push_socket(&mut line, socket);
    line
}

/// Of ESTABLISHED, and of all states that last.
const STATE_WIDTH: usize = 11;
/// Most lines of a socket are shorter.
const SOCKET_LINE_BYTES: usize = 128;

/// The lines of all of them.
pub(super) fn sockets(sockets: &[SocketReport], indent: &str, width: usize) -> String {
    let mut lines = String::with_capacity(sockets.len() * SOCKET_LINE_BYTES);
    for socket in sockets {
        let start = lines.len();
        lines.push_str(indent);
        push_socket(&mut lines, socket);
        if lines.len() - start > width {
            let line = cut(lines.split_off(start), width);
            lines.push_str(&line);
        }
        lines.push('\n');
    }
    lines
}

/// As [`socket_line`], behind what is in `line`. Numbers are written without `fmt`, which takes three
/// times as long.
fn push_socket(line: &mut String, socket: &SocketReport) {
    line.push_str(&socket.state);
    let padding = STATE_WIDTH.saturating_sub(socket.state.len());
    line.extend(std::iter::repeat_n(' ', padding));
    line.push_str("  ");
    push_address(line, socket.local);
    line.push_str(" -> ");
    push_address(line, socket.remote);
    line.push_str("  held by");
    for holder in &socket.holders {
        line.push(' ');
        push_number(line, holder.pid);
        line.push('/');
        push_number(line, holder.fd);
    }
    if socket.holders.is_empty() {
        line.push_str(" nobody");
    }
    if let Some(idle_s) = socket.idle_s {
        line.push_str("  idle ");
        push_age(line, idle_s);
    }
    line.push_str("  rx ");
    push_number(line, socket.rx_queue_bytes.unwrap_or(0));
    line.push_str(" tx ");
    push_number(line, socket.tx_queue_bytes.unwrap_or(0));
    line.push_str(" bytes");
    if let Some(opener) = &socket.opener {
        let name = clean(&opener.name);
        // Writing to a String cannot fail.
        let _ = write!(line, "  opened by {name} ({})", opener.pid);
    }
}

fn push_address(line: &mut String, address: SocketAddr) {
    let SocketAddr::V4(v4) = address else {
        let _ = write!(line, "{address}");
        return;
    };
    let mut before = "";
    for byte in v4.ip().octets() {
        line.push_str(before);
        push_number(line, byte);
        before = ".";
    }
    line.push(':');
    push_number(line, v4.port());
}

fn push_number(line: &mut String, number: impl itoa::Integer) {
    line.push_str(itoa::Buffer::new().format(number));
}

/// `worker.rs:88 handle_order`, or what is known of the frame.
pub(super) fn frame_line(frame: &Frame) -> String {
    let function = frame
        .function
        .as_deref()
        .map_or_else(|| "?".to_owned(), clean);
    let last = |path: &str| clean(path.rsplit('/').next().unwrap_or(path));
    let inlined = if frame.inlined { " (inlined)" } else { "" };
    match (&frame.file, frame.line, &frame.module) {
        (Some(file), Some(line), _) => format!("{}:{line} {function}{inlined}", last(file)),
        (Some(file), None, _) => format!("{} {function}{inlined}", last(file)),
        (None, _, Some(module)) => format!("{function} in {}", last(module)),
        (None, ..) => function,
    }
}

pub(super) fn cut(line: String, width: usize) -> String {
    // Not counted where they cannot be more.
    if line.len() <= width || line.chars().count() <= width {
        return line;
    }
    let mut cut: String = line.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{cut, push_address};

    #[test]
    fn addresses_are_written_as_everywhere() {
        for text in ["0.0.0.0:0", "255.10.9.1:65535", "[2001:db8::1]:6379"] {
            let address: SocketAddr = text.parse().expect("an address");
            let mut line = String::new();
            push_address(&mut line, address);
            assert_eq!(line, text);
        }
    }

    #[test]
    fn lines_are_cut_by_characters() {
        assert_eq!(cut("größer".to_owned(), 4), "grö…");
        assert_eq!(cut("kurz".to_owned(), 4), "kurz");
    }
}
