//! A group: client ends that are judged together, because one opener, unit or site answers for
//! them. Every group keeps its growth, and what looked leaked in it.

use std::{
    collections::{HashMap, hash_map},
    num::NonZeroU64,
    sync::Arc,
};

use super::{
    fact::Fact,
    growth::{Growth, KEPT_NS},
    ledger::Owner,
    rates::{Rates, net_per_minute},
    standing::Standing,
    verdict::{Case, Judgement, Suspicion, judge},
};
use crate::{
    clock::Clock,
    config::Verdicts,
    decode::socket::{End, Socket, SocketId},
    memory::Interned,
    sockets::Entry,
    stacks::Site,
};

/// Groups that are followed; a host with more has its quietest forgotten.
const GROUPS_MAX: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    Opener(Owner),
    Unit(Arc<str>),
    Site(Arc<Site>),
}

/// Who answers for a socket, and in which unit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Answering {
    owner: Owner,
    unit: Option<Arc<str>>,
}

/// Which groups a socket belongs to.
#[derive(Clone, Debug)]
struct Member {
    opened_ns: Option<NonZeroU64>,
    /// One for all sockets of an owner.
    answering: Arc<Answering>,
    /// `None` until its stack is known.
    site: Option<Arc<Site>>,
}

impl Member {
    fn groups(&self) -> impl Iterator<Item = Group> + use<> {
        let unit = self.answering.unit.clone().map(Group::Unit);
        let site = self.site.clone().map(Group::Site);
        let opener = Some(Group::Opener(self.answering.owner));
        [opener, unit, site].into_iter().flatten()
    }
}

#[derive(Debug)]
struct Followed {
    growth: Growth,
    standing: Standing,
    suspicion: Option<Suspicion>,
}

/// Every group that is followed. Bound: `GROUPS_MAX`, and one entry for each tracked socket.
#[derive(Debug)]
pub struct Groups {
    rules: Verdicts,
    members: HashMap<SocketId, Member>,
    answering: Interned<Answering>,
    followed: HashMap<Group, Followed>,
    watched_since_ns: u64,
}

impl Groups {
    pub fn new(rules: Verdicts, watched_since_ns: u64) -> Self {
        Self {
            rules,
            members: HashMap::new(),
            answering: Interned::default(),
            followed: HashMap::new(),
            watched_since_ns,
        }
    }

    pub fn set_rules(&mut self, rules: Verdicts) {
        self.rules = rules;
    }

    /// Takes over whose a socket is now, and of which unit.
    pub fn set(&mut self, socket: &Socket, owner: Owner, unit: Option<&str>, now_ns: u64) {
        if socket.own || socket.end == End::Server {
            return;
        }
        let opened_ns = socket.opened_ns.and_then(NonZeroU64::new);
        if let Some(known) = self.members.get(&socket.id) {
            let before = &known.answering;
            if known.opened_ns != opened_ns {
                self.forget(socket.id, now_ns);
            } else if before.owner == owner && before.unit.as_deref() == unit {
                return;
            }
        }
        let unit = unit.map(|unit| self.same_unit(unit));
        let now = self.answering.same(&Answering { owner, unit });
        let Some(known) = self.members.get_mut(&socket.id) else {
            let member = Member {
                opened_ns,
                answering: now,
                site: None,
            };
            for group in member.groups() {
                self.open(group, socket.opened_ns.unwrap_or(self.watched_since_ns));
            }
            self.members.insert(socket.id, member);
            return;
        };
        let before = std::mem::replace(&mut known.answering, Arc::clone(&now));
        if before.owner != now.owner {
            self.shift(Group::Opener(before.owner), -1, now_ns);
            self.shift(Group::Opener(now.owner), 1, now_ns);
        }
        if before.unit != now.unit {
            for (answering, by) in [(before, -1), (now, 1)] {
                if let Some(unit) = answering.unit.clone() {
                    self.shift(Group::Unit(unit), by, now_ns);
                }
            }
        }
    }

    /// Where the socket that was opened at `opened_ns` was opened from; it may be closed by now.
    pub fn set_site(&mut self, id: SocketId, opened_ns: Option<u64>, site: Arc<Site>) {
        let site = self.same_site(site);
        let at_ns = opened_ns.unwrap_or(self.watched_since_ns);
        let member = self.members.get_mut(&id);
        let opened_ns = opened_ns.and_then(NonZeroU64::new);
        let Some(member) = member.filter(|member| member.opened_ns == opened_ns) else {
            self.open(Group::Site(Arc::clone(&site)), at_ns);
            self.close(&Group::Site(site), at_ns, false);
            return;
        };
        if member.site.is_none() {
            member.site = Some(Arc::clone(&site));
            self.open(Group::Site(site), at_ns);
        }
    }

    /// One copy of a name serves all sockets.
    fn same_unit(&self, unit: &str) -> Arc<str> {
        match self.followed.get_key_value(&Group::Unit(unit.into())) {
            Some((Group::Unit(unit), _)) => Arc::clone(unit),
            _ => unit.into(),
        }
    }

    fn same_site(&self, site: Arc<Site>) -> Arc<Site> {
        match self.followed.get_key_value(&Group::Site(Arc::clone(&site))) {
            Some((Group::Site(site), _)) => Arc::clone(site),
            _ => site,
        }
    }

    /// The socket is no more.
    pub fn forget(&mut self, id: SocketId, now_ns: u64) {
        let Some(member) = self.members.remove(&id) else {
            return;
        };
        let opened_ns = member
            .opened_ns
            .map_or(self.watched_since_ns, NonZeroU64::get);
        let age_ns = u128::from(now_ns.saturating_sub(opened_ns));
        let was_old = age_ns >= self.rules.old_after.as_nanos();
        for group in member.groups() {
            self.close(&group, now_ns, was_old);
        }
    }

    /// So many sockets came and went; their sites may be told later.
    pub fn pass(&mut self, owner: Owner, unit: Option<&str>, count: u32, now_ns: u64) {
        let unit = unit.map(|unit| Group::Unit(self.same_unit(unit)));
        for group in [Some(Group::Opener(owner)), unit].into_iter().flatten() {
            if let Some(followed) = self.follow(group, now_ns) {
                followed.growth.pass(now_ns, count);
            }
        }
    }

    /// Drops the sockets that are no more, and were not seen to end.
    pub fn retain(&mut self, exists: impl Fn(SocketId) -> bool, now_ns: u64) {
        let gone: Vec<SocketId> = self
            .members
            .keys()
            .filter(|id| !exists(**id))
            .copied()
            .collect();
        for id in gone {
            self.forget(id, now_ns);
        }
    }

    /// What is open now was open when the watch began.
    pub fn begin(&mut self, now_ns: u64) {
        self.watched_since_ns = now_ns;
        for followed in self.followed.values_mut() {
            followed.growth = Growth::new(now_ns, followed.growth.count());
        }
    }

    fn open(&mut self, group: Group, at_ns: u64) {
        if let Some(followed) = self.follow(group, at_ns) {
            followed.growth.open(at_ns);
        }
    }

    fn close(&mut self, group: &Group, now_ns: u64, was_old: bool) {
        if let Some(followed) = self.followed.get_mut(group) {
            followed.growth.close(now_ns, was_old);
        }
    }

    fn shift(&mut self, group: Group, by: i64, now_ns: u64) {
        if let Some(followed) = self.follow(group, now_ns) {
            followed.growth.shift(by);
        }
    }

    fn follow(&mut self, group: Group, now_ns: u64) -> Option<&mut Followed> {
        if self.followed.len() >= GROUPS_MAX && !self.followed.contains_key(&group) {
            self.make_room(now_ns);
            if self.followed.len() >= GROUPS_MAX {
                return None;
            }
        }
        Some(match self.followed.entry(group) {
            hash_map::Entry::Occupied(entry) => entry.into_mut(),
            hash_map::Entry::Vacant(entry) => entry.insert(Followed {
                growth: Growth::new(now_ns, 0),
                standing: Standing::default(),
                suspicion: None,
            }),
        })
    }

    /// Forgets the groups with nothing outstanding: those that are out of memory anyhow, or half
    /// of them.
    fn make_room(&mut self, now_ns: u64) {
        self.forget_quiet(now_ns);
        let mut quiet: Vec<u64> = self
            .followed
            .values()
            .filter(|followed| followed.growth.count() == 0)
            .map(|followed| followed.growth.changed_ns())
            .collect();
        if self.followed.len() < GROUPS_MAX || quiet.is_empty() {
            return;
        }
        let middle = quiet.len() / 2;
        let (_, &mut oldest_kept_ns, _) = quiet.select_nth_unstable(middle);
        self.followed.retain(|_, followed| {
            followed.growth.count() > 0 || followed.growth.changed_ns() > oldest_kept_ns
        });
    }

    fn forget_quiet(&mut self, now_ns: u64) {
        self.followed.retain(|_, followed| {
            let quiet_ns = now_ns.saturating_sub(followed.growth.changed_ns());
            followed.growth.count() > 0 || quiet_ns < KEPT_NS
        });
    }

    /// Looks at how all sockets stand now, and remembers what looks leaked.
    pub fn look<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Entry>,
        clock: &Clock,
        now_ns: u64,
    ) {
        let since_ns = self.watched_since_ns;
        self.forget_quiet(now_ns);
        for followed in self.followed.values_mut() {
            followed.standing = Standing::default();
        }
        for entry in entries {
            let Some(member) = self.members.get(&entry.id()) else {
                continue;
            };
            for group in member.groups() {
                if let Some(followed) = self.followed.get_mut(&group) {
                    followed
                        .standing
                        .add(entry, &self.rules, clock, since_ns, now_ns);
                }
            }
        }
        for followed in self.followed.values_mut() {
            let case = followed.case(since_ns, now_ns);
            let leaks = judge(&case, &self.rules)
                .verdict
                .is_some_and(|verdict| verdict.is_leak());
            let standing = followed.standing;
            if leaks {
                followed.suspicion = Some(Suspicion {
                    at_ns: now_ns,
                    count: standing.outstanding,
                    leaked: standing
                        .forsaken
                        .max(standing.close_wait)
                        .max(standing.reset),
                });
            }
        }
    }

    /// As of the last look. `None` of a group that was never seen.
    pub fn judgement(&self, group: &Group, now_ns: u64) -> Judgement {
        match self.followed.get(group) {
            Some(followed) => judge(&followed.case(self.watched_since_ns, now_ns), &self.rules),
            None if self.followed.len() >= GROUPS_MAX => Judgement {
                verdict: None,
                facts: vec![Fact::NotFollowed],
            },
            None => Judgement::default(),
        }
    }

    /// Its growth over the window of the verdicts; `None` where it was watched for less.
    pub fn net_per_minute(&self, group: &Group, now_ns: u64) -> Option<f64> {
        let window_ns = u64::try_from(self.rules.window.as_nanos()).unwrap_or(u64::MAX);
        let followed = self.followed.get(group)?;
        let watched_ns = now_ns.saturating_sub(self.watched_since_ns);
        (watched_ns >= window_ns).then(|| net_per_minute(&followed.growth, window_ns, now_ns))
    }

    pub fn rates(&self, group: &Group, now_ns: u64) -> Option<Rates> {
        let followed = self.followed.get(group)?;
        Some(Rates::of(&followed.growth, self.watched_since_ns, now_ns))
    }

    /// The groups that are followed, with what is outstanding in each.
    pub fn iter(&self) -> impl Iterator<Item = (&Group, u32)> {
        self.followed
            .iter()
            .map(|(group, followed)| (group, followed.growth.count()))
    }

    pub fn rules(&self) -> &Verdicts {
        &self.rules
    }
}

impl Followed {
    fn case(&self, watched_since_ns: u64, now_ns: u64) -> Case<'_> {
        Case {
            growth: &self.growth,
            standing: self.standing,
            suspicion: self.suspicion,
            watched_since_ns,
            now_ns,
        }
    }
}
