//! The view over the fleet: the newest digest of every daemon, and their openers in one order.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::metrics::{Digest, DigestOpener};

/// The version of what `-o json` prints.
const SCHEMA: &str = "connleak.fleet/1";
/// A daemon writes every ten seconds unless it is told otherwise; who missed several is silent.
const SILENT: Duration = Duration::from_secs(45);

/// A daemon: one of a host's network namespaces, in one boot.
type Key = (String, String, Option<u32>);

#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) unix_ms: u64,
}

impl Now {
    pub(super) fn system() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let ms = since.unwrap_or_default().as_millis();
        Self {
            unix_ms: u64::try_from(ms).unwrap_or(u64::MAX),
        }
    }
}

/// When the Redis of the stream took an entry, by its own clock.
pub(super) fn unix_ms(id: &str) -> u64 {
    let ms = id.split('-').next().and_then(|ms| ms.parse().ok());
    ms.unwrap_or(0)
}

#[derive(Debug)]
pub(super) struct Fleet {
    within: Duration,
    newest: HashMap<Key, (u64, Digest)>,
    unreadable: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct View {
    pub(super) schema: &'static str,
    pub(super) hosts: Vec<Host>,
    /// The most outstanding first.
    pub(super) openers: Vec<FleetOpener>,
    /// Openers beyond those, as far as the hosts told.
    pub(super) more_openers: u64,
    /// Entries of the stream that are no digest of a version we know.
    pub(super) unreadable: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Host {
    /// Since its newest digest arrived.
    pub(super) age_s: f64,
    /// It has said nothing for long: what it told may be over.
    pub(super) silent: bool,
    #[serde(flatten)]
    pub(super) digest: DigestHead,
}

/// A digest without its openers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct DigestHead {
    pub(super) host: String,
    pub(super) boot_id: String,
    pub(super) netns: Option<u32>,
    pub(super) version: String,
    pub(super) kernel: String,
    pub(super) generated_at: String,
    pub(super) level: Option<String>,
    pub(super) outstanding: u64,
    pub(super) established_both_ends: u64,
    pub(super) established_client_ends: u64,
    pub(super) close_wait: u64,
    pub(super) unattributed: u64,
    pub(super) drift: u64,
    pub(super) dropped: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct FleetOpener {
    pub(super) host: String,
    pub(super) boot_id: String,
    pub(super) netns: Option<u32>,
    pub(super) silent: bool,
    #[serde(flatten)]
    pub(super) opener: DigestOpener,
}

impl Fleet {
    pub(super) fn new(within: Duration) -> Self {
        Self {
            within,
            newest: HashMap::new(),
            unreadable: 0,
        }
    }

    pub(super) fn within_ms(&self) -> u64 {
        u64::try_from(self.within.as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes over an entry of a stream; the newest of a daemon counts, in whatever order they come.
    pub(super) fn take(&mut self, id: &str, report: &str) {
        let Ok(digest) = serde_json::from_str::<Digest>(report) else {
            self.unreadable += 1;
            return;
        };
        let at_ms = unix_ms(id);
        let key = (digest.host.clone(), digest.boot_id.clone(), digest.netns);
        match self.newest.get(&key) {
            Some((newest_ms, _)) if *newest_ms > at_ms => {}
            _ => {
                self.newest.insert(key, (at_ms, digest));
            }
        }
    }

    pub(super) fn view(&mut self, now: Now, limit: usize) -> View {
        let within_ms = self.within_ms();
        let age_ms = |at_ms: u64| now.unix_ms.saturating_sub(at_ms);
        self.newest
            .retain(|_, (at_ms, _)| age_ms(*at_ms) <= within_ms);
        // What a host told before it was booted anew is over.
        let booted: HashMap<(String, Option<u32>), u64> =
            self.newest
                .iter()
                .fold(HashMap::new(), |mut booted, ((host, _, netns), (at, _))| {
                    let latest = booted.entry((host.clone(), *netns)).or_default();
                    *latest = (*at).max(*latest);
                    booted
                });
        let silent_ms = u64::try_from(SILENT.as_millis()).unwrap_or(u64::MAX);
        let mut hosts = Vec::new();
        let mut openers = Vec::new();
        let mut openers_total = 0;
        for ((host, boot_id, netns), (at_ms, digest)) in &self.newest {
            let silent = age_ms(*at_ms) > silent_ms;
            if silent && booted.get(&(host.clone(), *netns)) > Some(at_ms) {
                continue;
            }
            hosts.push(Host {
                age_s: age_ms(*at_ms) as f64 / 1000.0,
                silent,
                digest: DigestHead::of(digest),
            });
            openers_total += digest.openers_total;
            openers.extend(digest.openers.iter().map(|opener| FleetOpener {
                host: host.clone(),
                boot_id: boot_id.clone(),
                netns: *netns,
                silent,
                opener: opener.clone(),
            }));
        }
        hosts.sort_by(|a, b| {
            let order = |it: &Host| (Reverse(it.digest.outstanding), it.digest.host.clone());
            order(a).cmp(&order(b))
        });
        openers.sort_by(|a, b| {
            let order = |it: &FleetOpener| {
                let of = &it.opener;
                (it.silent, Reverse(of.outstanding), it.host.clone(), of.pid)
            };
            order(a).cmp(&order(b))
        });
        openers.truncate(limit);
        View {
            schema: SCHEMA,
            hosts,
            more_openers: openers_total.saturating_sub(openers.len() as u64),
            openers,
            unreadable: self.unreadable,
        }
    }
}

impl DigestHead {
    fn of(digest: &Digest) -> Self {
        Self {
            host: digest.host.clone(),
            boot_id: digest.boot_id.clone(),
            netns: digest.netns,
            version: digest.version.clone(),
            kernel: digest.kernel.clone(),
            generated_at: digest.generated_at.clone(),
            level: digest.level.clone(),
            outstanding: digest.outstanding,
            established_both_ends: digest.established_both_ends,
            established_client_ends: digest.established_client_ends,
            close_wait: digest.close_wait,
            unattributed: digest.unattributed,
            drift: digest.drift,
            dropped: digest.dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::Lost;

    fn digest(host: &str, boot_id: &str, outstanding: &[u64]) -> String {
        let opener = |(index, outstanding): (usize, &u64)| DigestOpener {
            pid: Some(index as u32 + 1),
            start_time: None,
            name: None,
            unit: None,
            container: None,
            pod: None,
            user: None,
            outstanding: *outstanding,
            opened: None,
            closed: None,
            oldest_age_s: None,
            verdict: None,
            sites: Vec::new(),
        };
        let digest = Digest {
            schema: "connleak.digest/1".to_owned(),
            version: "1".to_owned(),
            host: host.to_owned(),
            boot_id: boot_id.to_owned(),
            netns: Some(1),
            kernel: String::new(),
            started_at: String::new(),
            generated_at: String::new(),
            ports: vec![6379],
            level: None,
            established_both_ends: 0,
            established_client_ends: 0,
            close_wait: 0,
            unattributed: 0,
            drift: 0,
            lost: Lost::default(),
            outstanding: outstanding.iter().sum(),
            openers_total: outstanding.len() as u64,
            openers: outstanding.iter().enumerate().map(opener).collect(),
            number: None,
            dropped: 0,
        };
        serde_json::to_string(&digest).expect("a digest is JSON")
    }

    fn fleet() -> Fleet {
        Fleet::new(Duration::from_secs(300))
    }

    const NOW: Now = Now { unix_ms: 1_000_000 };

    #[test]
    fn the_worst_opener_of_all_hosts_is_first() {
        let mut fleet = fleet();
        fleet.take("990000-0", &digest("a", "1", &[10, 3]));
        fleet.take("991000-0", &digest("b", "2", &[40, 2]));
        fleet.take("992000-0", &digest("c", "3", &[7]));
        let view = fleet.view(NOW, 3);
        let openers: Vec<_> = view
            .openers
            .iter()
            .map(|it| (it.host.as_str(), it.opener.outstanding))
            .collect();
        assert_eq!(openers, [("b", 40), ("a", 10), ("c", 7)]);
        assert_eq!(view.more_openers, 2);
        let hosts: Vec<_> = view.hosts.iter().map(|it| &*it.digest.host).collect();
        assert_eq!(hosts, ["b", "a", "c"]);
    }

    #[test]
    fn the_newest_digest_counts_in_whatever_order_they_come() {
        let mut fleet = fleet();
        fleet.take("999000-0", &digest("a", "1", &[5]));
        fleet.take("990000-0", &digest("a", "1", &[50]));
        assert_eq!(fleet.view(NOW, 10).hosts[0].digest.outstanding, 5);
    }

    #[test]
    fn who_is_silent_is_said_and_who_is_long_silent_is_gone() {
        let mut fleet = fleet();
        fleet.take("940000-0", &digest("quiet", "1", &[50]));
        fleet.take("999000-0", &digest("lively", "2", &[5]));
        fleet.take("600000-0", &digest("gone", "3", &[500]));
        let view = fleet.view(NOW, 10);
        let hosts: Vec<_> = view
            .hosts
            .iter()
            .map(|it| (&*it.digest.host, it.silent))
            .collect();
        assert_eq!(hosts, [("quiet", true), ("lively", false)]);
        assert_eq!(view.openers[0].host, "lively", "what is silent may be over");
    }

    #[test]
    fn what_a_host_told_before_it_was_booted_anew_is_over() {
        let mut fleet = fleet();
        fleet.take("940000-0", &digest("a", "before", &[50]));
        fleet.take("999000-0", &digest("a", "after", &[5]));
        let view = fleet.view(NOW, 10);
        assert_eq!(view.hosts.len(), 1);
        assert_eq!(view.hosts[0].digest.boot_id, "after");
    }

    #[test]
    fn entries_that_are_no_digest_are_counted() {
        let mut fleet = fleet();
        fleet.take("999000-0", "{}");
        fleet.take("999000-1", "\u{1b}[2J");
        assert_eq!(fleet.view(NOW, 10).unreadable, 2);
    }
}
