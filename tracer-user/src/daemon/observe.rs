//! What the tracer counts, as the policy wants to see it.

use std::collections::BTreeSet;

use crate::accounting::{Growth, Owner};
use crate::config::{Config, CountMode, Watch};
use crate::pipeline::Tracer;
use crate::policy::observation::{Observation, OpenerCount, PortCount, RedisView};

#[derive(Debug)]
pub(super) struct Seen {
    pub(super) ports: Vec<PortCount>,
    pub(super) openers: Vec<OpenerCount>,
    unattributed_growth_per_minute: f64,
}

impl Seen {
    pub(super) fn observation<'a>(
        &'a self,
        listeners: &'a BTreeSet<String>,
        redis: RedisView,
    ) -> Observation<'a> {
        Observation {
            ports: &self.ports,
            openers: &self.openers,
            unattributed_growth_per_minute: self.unattributed_growth_per_minute,
            listeners,
            redis,
        }
    }

    /// Whether some count is CRITICAL now, held or not.
    pub(super) fn is_critical(&self, config: &Config) -> bool {
        let port = |watch: &Watch| self.count(watch.port) >= watch.critical;
        config.watch.0.iter().any(port)
            || config.unit.iter().any(|unit| {
                let own = unit.own_levels();
                own.is_some_and(|own| self.of_unit(&unit.name) >= own.critical)
            })
    }

    pub(super) fn count(&self, port: u16) -> u32 {
        let found = self.ports.iter().find(|it| it.port == port);
        found.map_or(0, |it| it.count)
    }

    fn of_unit(&self, unit: &str) -> u32 {
        let of_unit = self
            .openers
            .iter()
            .filter(|it| it.unit.as_deref() == Some(unit));
        of_unit.fold(0, |sum, it| sum.saturating_add(it.outstanding))
    }
}

pub(super) fn look(tracer: &Tracer, config: &Config, now_ns: u64) -> Seen {
    let counts = tracer.counts();
    let ports = config.watch.0.iter().map(|watch| {
        let totals = counts.port(watch.port);
        PortCount {
            port: watch.port,
            count: match watch.count {
                CountMode::BothEnds => totals.both_ends(),
                CountMode::ClientEnds => totals.client_ends,
            },
        }
    });
    let least = config.policy.min_growth_per_minute;
    let anyone_grows = counts
        .owners()
        .any(|(_, _, growth)| growth.recent_per_minute(now_ns) > least);
    // Nobody gains now: then whoever did is the cause of what is there.
    let rate = |growth: &Growth| match anyone_grows {
        true => growth.recent_per_minute(now_ns),
        false => growth.lasting_per_minute(now_ns),
    };
    let mut seen = Seen {
        ports: ports.collect(),
        openers: Vec::new(),
        unattributed_growth_per_minute: 0.0,
    };
    for (owner, port, growth) in counts.owners().filter(|(_, _, it)| it.count() > 0) {
        match owner {
            Owner::Process(key) => seen.openers.push(OpenerCount {
                pid: key.pid,
                unit: tracer.process(key).and_then(|process| process.unit.clone()),
                port,
                outstanding: growth.count(),
                growth_per_minute: rate(growth),
            }),
            Owner::Unattributed => seen.unattributed_growth_per_minute += rate(growth),
        }
    }
    seen.openers.sort_by_key(|opener| {
        (
            std::cmp::Reverse(opener.outstanding),
            opener.pid,
            opener.port,
        )
    });
    seen
}
