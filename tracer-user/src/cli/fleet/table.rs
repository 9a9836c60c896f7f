//! The fleet as a table: its hosts, then its openers.

use std::fmt::{self, Write};

use anstyle::{AnsiColor, Style as Paint};

use super::view::{FleetOpener, Host, View};
use crate::report::{Style, clean};

/// More hosts than that are counted, not listed.
const HOSTS_MAX: usize = 50;

pub(super) fn table(view: &View, style: Style) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = put(&mut text, view, style);
    text
}

fn put(text: &mut String, view: &View, style: Style) -> fmt::Result {
    let paint = |paint: Paint| if style.color { paint } else { Paint::new() };
    let heading = paint(AnsiColor::Cyan.on_default());
    let bold = paint(Paint::new().bold());
    let outstanding: u64 = view.hosts.iter().map(|it| it.digest.outstanding).sum();
    let mut line = |paint: Paint, line: String| {
        let line: String = line.trim_end().chars().take(style.width).collect();
        writeln!(text, "{paint}{line}{paint:#}")
    };
    line(
        bold,
        format!(
            "{outstanding} connections outstanding on {} {}",
            view.hosts.len(),
            if view.hosts.len() == 1 {
                "host"
            } else {
                "hosts"
            }
        ),
    )?;
    if view.unreadable > 0 {
        line(
            Paint::new(),
            format!(
                "{} entries of the stream are of another version",
                view.unreadable
            ),
        )?;
    }
    if view.hosts.is_empty() {
        return Ok(());
    }
    line(Paint::new(), String::new())?;
    line(
        heading,
        format!(
            "{:<24} {:<9} {:>11} {:>11} {:>10} {:>8}",
            "HOST", "LEVEL", "OUTSTANDING", "ESTABLISHED", "CLOSE_WAIT", "HEARD"
        ),
    )?;
    for host in view.hosts.iter().take(HOSTS_MAX) {
        line(Paint::new(), host_line(host))?;
    }
    let hidden = view.hosts.len().saturating_sub(HOSTS_MAX);
    if hidden > 0 {
        line(Paint::new(), format!("and {hidden} more hosts"))?;
    }
    if view.openers.is_empty() {
        return Ok(());
    }
    line(Paint::new(), String::new())?;
    line(
        heading,
        format!(
            "{:>11} {:<24} {:>8} {:<16} {:<28} {:<16} SITE",
            "OUTSTANDING", "HOST", "PID", "NAME", "UNIT", "VERDICT"
        ),
    )?;
    for opener in &view.openers {
        line(Paint::new(), opener_line(opener))?;
    }
    if view.more_openers > 0 {
        let more = format!("and {} more openers with less", view.more_openers);
        line(paint(Paint::new().dimmed()), more)?;
    }
    Ok(())
}

fn host_line(host: &Host) -> String {
    let digest = &host.digest;
    let silent = if host.silent { "  silent" } else { "" };
    let dropped = match digest.dropped {
        0 => String::new(),
        dropped => format!("  {dropped} reports dropped"),
    };
    format!(
        "{:<24} {:<9} {:>11} {:>11} {:>10} {:>6.0} s{silent}{dropped}",
        clean(&digest.host),
        clean(digest.level.as_deref().unwrap_or("-")),
        digest.outstanding,
        digest.established_both_ends,
        digest.close_wait,
        host.age_s,
    )
}

fn opener_line(of: &FleetOpener) -> String {
    let opener = &of.opener;
    let pid = opener
        .pid
        .map_or_else(|| "-".to_owned(), |it| it.to_string());
    let text = |text: &Option<String>| clean(text.as_deref().unwrap_or("-"));
    let place = match (&opener.unit, &opener.container) {
        (None, Some(container)) => clean(&container.chars().take(12).collect::<String>()),
        (unit, _) => text(unit),
    };
    let name = match (&opener.name, opener.pid) {
        (None, None) => "unattributed".to_owned(),
        (name, _) => text(name),
    };
    let site = opener.sites.first().map_or_else(String::new, |site| {
        let file = site.file.as_deref().map(|file| {
            let last = file.rsplit('/').next().unwrap_or(file);
            let line = site.line.map(|line| format!(":{line}"));
            format!(" {}{}", clean(last), line.unwrap_or_default())
        });
        let function = site.function.as_ref().or(site.note.as_ref());
        format!(
            "{}{}",
            clean(function.map_or("-", String::as_str)),
            file.unwrap_or_default()
        )
    });
    format!(
        "{:>11} {:<24} {pid:>8} {name:<16} {place:<28} {:<16} {site}",
        opener.outstanding,
        clean(&of.host),
        text(&opener.verdict),
    )
}
