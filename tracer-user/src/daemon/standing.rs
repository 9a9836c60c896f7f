//! How the daemon stands: its status when asked, its heartbeat when not.

use std::collections::BTreeMap;

use super::journal::Priority;

use super::observe;
use super::probing::Probing;
use super::run::{Daemon, timestamp};
use super::status::{
    ManualStatus, OpenerInRedis, OpenerStatus, PortStatus, RedisStatus, SCHEMA, Status,
    SubjectStatus,
};
use super::words;
use crate::accounting::Owner;
use crate::clock;

/// More openers than a person reads.
const MAX_OPENERS: usize = 100;

impl Daemon {
    pub(super) fn status(&self) -> Status {
        let now_ns = clock::boot_ns();
        let now = timestamp(now_ns);
        let state = self.machine.state();
        let rules = self.machine.rules();
        let tracer = &self.tracer;
        let usage = self.usage.status(tracer, &self.config.limits);
        let cooldown_left = state
            .last_interruption
            .map(|last| last.after(rules.cooldown).since(now).as_secs_f64())
            .filter(|left| *left > 0.0);
        Status {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            host: tracer.host().name.clone(),
            started_at: self.started_at.clone(),
            generated_at: tracer.clock().rfc3339(now_ns),
            config: self
                .options
                .config_file
                .as_ref()
                .map(|file| file.display().to_string()),
            dry_run: rules.dry_run,
            probes: tracer
                .probes()
                .taken
                .iter()
                .map(|(hook, by)| (hook.to_string(), (*by).to_owned()))
                .collect(),
            manual: self.machine.manual().map(|manual| ManualStatus {
                cause: manual.cause.to_string(),
                for_s: now.since(manual.since).as_secs_f64(),
            }),
            subjects: self.subjects(),
            ports: rules
                .ports
                .keys()
                .map(|&port| {
                    let totals = tracer.counts().port(port);
                    PortStatus {
                        port,
                        established_both_ends: totals.both_ends(),
                        established_client_ends: totals.client_ends,
                    }
                })
                .collect(),
            openers: self.openers(now_ns),
            cooldown_left_s: cooldown_left,
            acting: state.pending.map(|pending| pending.unit),
            verifying: state.verification.map(|verification| verification.unit),
            failed_restarts: state.failed_restarts,
            redis: Probing::report(&self.probing).map(|report| RedisStatus::of(&report)),
            drift: tracer.drift().total(),
            lost: tracer.lost().ok(),
            resident_bytes: usage.resident_bytes,
            usage: Some(usage),
            stream: self.exports.stream_status(),
            otlp: self.exports.otlp_status(),
        }
    }

    fn subjects(&self) -> Vec<SubjectStatus> {
        let blocked: BTreeMap<_, _> = self.machine.blocked().collect();
        let levels = self.machine.levels().map(|(subject, tracker)| {
            let rule = tracker.rule();
            SubjectStatus {
                subject: subject.to_string(),
                level: tracker.held(),
                raw_level: tracker.raw(),
                count: tracker.count(),
                warning: rule.thresholds.warning,
                leak: rule.thresholds.leak,
                critical: rule.thresholds.critical,
                expected_min: rule.expected.map(|range| range.min),
                expected_max: rule.expected.map(|range| range.max),
                missing: tracker.is_missing(),
                blocked: blocked.get(subject).map(ToString::to_string),
            }
        });
        levels.collect()
    }

    fn openers(&self, now_ns: u64) -> Vec<OpenerStatus> {
        let seen = observe::look(&self.tracer, &self.config, now_ns);
        let names: BTreeMap<u32, &str> = self
            .tracer
            .counts()
            .owners()
            .filter_map(|(owner, _, _)| match owner {
                Owner::Process(key) => Some((key.pid, self.tracer.process(key)?.name.as_str())),
                Owner::Unattributed => None,
            })
            .collect();
        let in_redis = self.openers_in_redis();
        let openers = seen.openers.into_iter().take(MAX_OPENERS);
        openers
            .map(|opener| OpenerStatus {
                pid: opener.pid,
                name: names.get(&opener.pid).map(|&name| name.to_owned()),
                unit: opener.unit,
                port: opener.port,
                outstanding: opener.outstanding,
                growth_per_minute: opener.growth_per_minute,
                redis: in_redis.get(&(opener.pid, opener.port)).cloned(),
            })
            .collect()
    }

    /// By PID and port, what Redis' own list says of the connections of that process.
    fn openers_in_redis(&self) -> BTreeMap<(u32, u16), OpenerInRedis> {
        let mut openers: BTreeMap<_, OpenerInRedis> = BTreeMap::new();
        let report = Probing::report(&self.probing);
        let Some(clients) = report.and_then(|report| report.clients) else {
            return openers;
        };
        for (key, local, remote) in self.tracer.client_ends() {
            if let Some(client) = clients.find(local, remote) {
                let opener = openers.entry((key.pid, remote.port())).or_default();
                opener.add(client);
            }
        }
        openers
    }

    pub(super) fn ports(&self) -> String {
        let ports = self.config.watch.0.iter();
        let ports: Vec<String> = ports.map(|watch| format!(":{}", watch.port)).collect();
        ports.join(" ")
    }

    /// One line that says all is alive, for the journal and for `systemctl status`.
    pub(super) fn heartbeat(&mut self) {
        let levels = self
            .machine
            .levels()
            .map(|(subject, tracker)| (subject, tracker.held(), tracker.count()));
        let mut text = words::standing(levels, self.machine.manual().is_some());
        if let Some(report) = Probing::report(&self.probing) {
            text.push_str(&format!(", redis {}", report.answer.name()));
            let first = report.probes.first().and_then(|probe| probe.windows[2]);
            if let Some(summary) = first {
                text.push_str(&format!(" {:.2} ms", summary.average_us / 1000.0));
            }
        }
        let drift = self.tracer.drift().total();
        text.push_str(&format!(", drift {drift}"));
        match self.tracer.lost() {
            Ok(lost) => text.push_str(&format!(", lost {}", lost.ring_full)),
            Err(error) => self.say_failure("counters", Err(error)),
        }
        let port = self.machine.levels().next();
        let (level, count) = port.map_or(("", String::new()), |(_, tracker)| {
            (tracker.held().name(), tracker.count().to_string())
        });
        let fields = [
            ("EVENT", "heartbeat"),
            ("LEVEL", level),
            ("COUNT", count.as_str()),
        ];
        self.journal.say(Priority::Info, &text, &fields);
        self.notify.status(&text);
        self.usage.heartbeat();
    }
}
