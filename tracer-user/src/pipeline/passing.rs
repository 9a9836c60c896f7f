//! Passing: sockets that came and went before anyone looked. Where many do, they are nearly all
//! that the ring tells of, so each is counted where its notice lies, and not copied.

use super::{standing::unit, state::State};
use crate::{
    accounting::Owner,
    decode::{
        glimpse::Glimpse,
        socket::{End, Opener},
    },
    kernel::Maps,
};

/// Stacks of passing sockets, unwound for the sake of their site: so many a second.
const PASSING_STACKS: u32 = 50;
const SECOND_NS: u64 = 1_000_000_000;

/// The stacks that were taken in this second.
#[derive(Debug, Default)]
pub(super) struct Passing {
    since_ns: u64,
    stacks: u32,
}

impl Passing {
    fn has_room(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.since_ns) >= SECOND_NS || self.stacks < PASSING_STACKS
    }

    /// Takes one stack. False if there were enough.
    pub(super) fn take(&mut self, now_ns: u64) -> bool {
        if now_ns.saturating_sub(self.since_ns) >= SECOND_NS {
            *self = Self {
                since_ns: now_ns,
                stacks: 0,
            };
        }
        let has_room = self.has_room(now_ns);
        self.stacks += u32::from(has_room);
        has_room
    }

    /// Counts what an entry of the ring tells of, if nothing else is left to do for it.
    ///
    /// That a life is marked as over holds whenever it is read: unlike a look at `SOCKETS` it need
    /// not wait until the reader has moved on.
    pub(super) fn passes(&self, entry: &[u8], maps: &Maps, state: &mut State, now_ns: u64) -> bool {
        let Some(told) = Glimpse::of(entry) else {
            return false;
        };
        if told.is_destroyed {
            return state.table.get(told.id).is_none();
        }
        if !maps.has_ended(told.id.0, told.opened_ns)
            || told.is_connect && self.has_room(now_ns)
            || state.table.get(told.id).is_some()
        {
            return false;
        }
        state.pass(told.end, told.opener.as_ref(), now_ns);
        true
    }
}

impl State {
    /// A socket came and went without ever being in the table.
    pub(super) fn pass(&mut self, end: End, opener: Option<&Opener>, now_ns: u64) {
        self.at_ns = self.at_ns.max(now_ns);
        self.delivered += 1;
        let Some(opener) = opener else {
            return;
        };
        let Self {
            passed, processes, ..
        } = self;
        let count = passed.entry(opener.process).or_insert_with(|| {
            processes.meet(opener.process, opener.comm, Some(opener.uid));
            0
        });
        *count += u32::from(end == End::Client);
    }

    /// The groups learn of those that passed, all of one opener at once: it has thousands a second.
    pub(super) fn count_passed(&mut self, now_ns: u64) {
        for (opener, count) in self.passed.drain().filter(|&(_, count)| count > 0) {
            let owner = Owner::Process(opener);
            let unit = unit(owner, &self.processes);
            self.groups.pass(owner, unit, count, now_ns);
        }
    }
}
