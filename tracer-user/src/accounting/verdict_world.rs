//! A world for tests of verdicts: sockets that are opened, used and closed under a virtual clock.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Group, Groups, Judgement, Owner, Verdict};
use crate::{
    clock::Clock,
    config::Verdicts,
    decode::socket::{End, Socket, SocketId, TcpState},
    memory::Interned,
    process::ProcessKey,
    sockets::{Entry, StackRef, Traffic},
    stacks::Site,
};

pub(super) const SECOND_NS: u64 = 1_000_000_000;
/// Something was traced before.
const START_S: f64 = 10_000.0;

/// Sockets, their use and the time, in minutes that can be made shorter than they are.
pub(super) struct World {
    pub(super) groups: Groups,
    clock: Clock,
    pub(super) sockets: BTreeMap<u64, (Entry, f64)>,
    pub(super) next: u64,
    /// Length of a minute of this world, seconds.
    minute_s: f64,
    pub(super) now_s: f64,
}

pub(super) fn opener(pid: u32) -> Owner {
    Owner::Process(ProcessKey {
        pid,
        start_time_ns: 1,
    })
}

pub(super) fn site(line: u32) -> Site {
    Site {
        function: Some("get_client".to_owned()),
        file: Some("/srv/app.py".to_owned()),
        line: Some(line),
        module: None,
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with_minutes_of(60.0)
    }

    pub(super) fn with_minutes_of(minute_s: f64) -> Self {
        let scaled = |duration: Duration| duration.mul_f64(minute_s / 60.0);
        let rules = Verdicts::default();
        let rules = Verdicts {
            window: scaled(rules.window),
            old_after: scaled(rules.old_after),
            held_after: scaled(rules.held_after),
            never_used_after: scaled(rules.never_used_after),
            idle_after: scaled(rules.idle_after),
            recovered_for: scaled(rules.recovered_for),
            min_growth_per_minute: rules.min_growth_per_minute * 60.0 / minute_s,
            churn_per_minute: rules.churn_per_minute * 60.0 / minute_s,
            ..rules
        };
        Self {
            groups: Groups::new(rules, (START_S * 1e9) as u64),
            clock: Clock::fixed(0, 1000),
            sockets: BTreeMap::new(),
            next: 1,
            minute_s,
            now_s: START_S,
        }
    }

    pub(super) fn minute(&self) -> f64 {
        (self.now_s - START_S) / self.minute_s
    }

    pub(super) fn now_ns(&self) -> u64 {
        (self.now_s * 1e9) as u64
    }

    pub(super) fn open(&mut self, pid: u32, unit: &str) -> u64 {
        let id = self.next;
        self.next += 1;
        let socket = Socket {
            id: SocketId(id),
            end: End::Client,
            state: TcpState::Established,
            local: "127.0.0.1:40000".parse().expect("an address"),
            remote: "127.0.0.1:6379".parse().expect("an address"),
            netns: 1,
            opener: None,
            opened_ns: Some(self.now_ns()),
            established_ns: Some(self.now_ns()),
            released_ns: None,
            changed_ns: Some(self.now_ns()),
            own: false,
            let_go: false,
            abandoned: false,
            no_stack: None,
        };
        self.groups
            .set(&socket, opener(pid), Some(unit), self.now_ns());
        self.groups
            .set_site(socket.id, socket.opened_ns, Arc::new(site(pid)));
        let mut entry = Entry::new(&socket, StackRef::Pending, &mut Interned::default());
        entry.set_traffic(Traffic {
            bytes_received: 10,
            bytes_sent: 10,
            ..Traffic::default()
        });
        self.sockets.insert(id, (entry, self.now_s));
        id
    }

    pub(super) fn close(&mut self, id: u64) {
        self.sockets.remove(&id);
        let now_ns = self.now_ns();
        self.groups.forget(SocketId(id), now_ns);
    }

    pub(super) fn close_all(&mut self) {
        let ids: Vec<u64> = self.sockets.keys().copied().collect();
        for id in ids {
            self.close(id);
        }
    }

    pub(super) fn use_all(&mut self) {
        for (_, used_s) in self.sockets.values_mut() {
            *used_s = self.now_s;
        }
    }

    pub(super) fn enter(&mut self, state: TcpState) {
        let now_ns = self.now_ns();
        for (entry, _) in self.sockets.values_mut() {
            let socket = Socket {
                state,
                changed_ns: Some(now_ns),
                ..entry.socket()
            };
            entry.renew(&socket, &mut Interned::default());
        }
    }

    /// Runs `each` every twentieth of a minute, looks, and hands the verdict of every group to
    /// `see`.
    pub(super) fn run(
        &mut self,
        minutes: f64,
        mut each: impl FnMut(&mut Self),
        mut see: impl FnMut(f64, &Group, &Judgement),
    ) {
        let steps = (minutes * 20.0).round() as u32;
        for _ in 0..steps {
            self.now_s += self.minute_s / 20.0;
            each(self);
            self.look();
            let groups: Vec<Group> = self.groups.iter().map(|(group, _)| group.clone()).collect();
            for group in groups {
                let judgement = self.groups.judgement(&group, self.now_ns());
                see(self.minute(), &group, &judgement);
            }
        }
    }

    pub(super) fn look(&mut self) {
        let now_s = self.now_s;
        for (entry, used_s) in self.sockets.values_mut() {
            let traffic = entry.traffic().unwrap_or_default();
            entry.set_traffic(Traffic {
                idle_jiffies: ((now_s - *used_s) * 1000.0) as u32,
                ..traffic
            });
        }
        let (now_ns, clock) = (self.now_ns(), self.clock.clone());
        self.groups.look(
            self.sockets.values().map(|(entry, _)| entry),
            &clock,
            now_ns,
        );
    }

    pub(super) fn verdict(&self, group: &Group) -> Option<Verdict> {
        self.groups.judgement(group, self.now_ns()).verdict
    }
}

pub(super) fn unit(name: &str) -> Group {
    Group::Unit(name.into())
}

pub(super) fn no_leak(minute: f64, group: &Group, judgement: &Judgement) {
    let leaks = judgement.verdict.is_some_and(Verdict::is_leak);
    assert!(!leaks, "after {minute:.1} min, {group:?}: {judgement:?}");
}

/// Opens `per_minute`, evenly.
pub(super) fn grow(world: &mut World, pid: u32, per_minute: f64) {
    let due = world.minute() * per_minute;
    while (world.next as f64) <= due {
        world.open(pid, "worker.service");
    }
}
