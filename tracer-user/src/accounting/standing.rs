//! A standing: how the sockets of an opener, a unit or a site are now, as a verdict looks at them.

use std::time::Duration;

use super::fact::Part;
use crate::{clock::Clock, config::Verdicts, decode::socket::TcpState, sockets::Entry};

/// Counts of client ends. What is not known of a socket does not speak against it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub outstanding: u32,
    /// Open for longer than `old_after`.
    pub old: u32,
    /// Of the old, the ones that carried nothing for at least half of their life.
    pub forsaken: u32,
    /// In CLOSE_WAIT for longer than `held_after`.
    pub close_wait: u32,
    /// In CLOSE, after having been established, for longer than `held_after`.
    pub reset: u32,
    /// Carried nothing for longer than `idle_after`.
    pub idle: u32,
    /// Carried nothing at all, and open for longer than `never_used_after`.
    pub never_used: u32,
}

impl Standing {
    /// Adds a socket as it is `now_ns`. What was there at the start is at least as old as the
    /// watch.
    pub fn add(
        &mut self,
        entry: &Entry,
        rules: &Verdicts,
        clock: &Clock,
        watched_since_ns: u64,
        now_ns: u64,
    ) {
        let since = |ns: Option<u64>| {
            let ns = ns.unwrap_or(watched_since_ns);
            Duration::from_nanos(now_ns.saturating_sub(ns))
        };
        let (age, unchanged) = (since(entry.opened_ns()), since(entry.changed_ns()));
        self.outstanding += 1;
        let is_held = unchanged >= rules.held_after && entry.released_ns().is_none();
        match entry.state() {
            TcpState::CloseWait if is_held => self.close_wait += 1,
            TcpState::Close if is_held && entry.established_ns().is_some() => self.reset += 1,
            _ => {}
        }
        let is_old = age >= rules.old_after;
        self.old += u32::from(is_old);
        let Some(traffic) = entry.traffic() else {
            return;
        };
        let idle_s = clock.jiffies_as_seconds(traffic.idle_jiffies);
        let is_used = traffic.bytes_received > 0 || traffic.bytes_sent > 0;
        self.forsaken += u32::from(is_old && idle_s * 2.0 >= age.as_secs_f64());
        self.idle += u32::from(idle_s >= rules.idle_after.as_secs_f64());
        self.never_used += u32::from(!is_used && age >= rules.never_used_after);
    }

    pub(super) fn part(&self, sockets: u32, for_at_least: Duration) -> Part {
        Part {
            sockets,
            of: self.outstanding,
            for_at_least,
        }
    }
}
