//! A group of this host: who beside root may talk to the daemon.

use std::fs;

/// Its number in /etc/group.
pub(super) fn gid_of(name: &str) -> Option<u32> {
    let text = fs::read_to_string("/etc/group").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Whether the process is in the group beside its first one.
pub(super) fn is_member(pid: u32, gid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    groups.is_some_and(|groups| {
        let mut numbers = groups.split_whitespace();
        numbers.any(|number| number.parse() == Ok(gid))
    })
}
