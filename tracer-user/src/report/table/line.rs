//! A line of the table: what is said of one process, one socket, one frame.

use anstyle::{AnsiColor, Style as Paint};

use super::super::clean::clean;
use super::super::model::{OpenerReport, SocketReport};
use crate::accounting::Verdict;
use crate::clock::age;
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
    let holders: Vec<String> = socket
        .holders
        .iter()
        .map(|holder| format!("{}/{}", holder.pid, holder.fd))
        .collect();
    let holders = if holders.is_empty() {
        "nobody".to_owned()
    } else {
        holders.join(" ")
    };
    let idle = socket
        .idle_s
        .map(|idle| format!("  idle {}", age(idle)))
        .unwrap_or_default();
    let queues = format!(
        "  rx {} tx {} bytes",
        socket.rx_queue_bytes.unwrap_or(0),
        socket.tx_queue_bytes.unwrap_or(0)
    );
    let opener = socket
        .opener
        .as_ref()
        .map(|opener| format!("  opened by {} ({})", clean(&opener.name), opener.pid))
        .unwrap_or_default();
    format!(
        "{:<11}  {} -> {}  held by {holders}{idle}{queues}{opener}",
        socket.state, socket.local, socket.remote
    )
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

pub(super) fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let mut cut: String = line.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn lines_are_cut_by_characters() {
        assert_eq!(cut("größer", 4), "grö…");
        assert_eq!(cut("kurz", 4), "kurz");
    }
}
