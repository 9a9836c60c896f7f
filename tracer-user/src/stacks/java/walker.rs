//! The Java frames of one stack, from callee to caller, each checked against the one it called.
//!
//! The stack is the one at connect, and code is read somewhat later: by then other code may stand
//! in its place. It would have to return to the very same address, and to call a method of the name
//! that the frame inside of it has.

use super::super::Frame;
use super::activation::{Returned, Step, step};
use super::calls::Called;
use super::machine::Machine;
use super::method::MethodReader;
use super::walk_memory::{Budget, WALK_MAX_BYTES, WalkMemory};

/// What a frame of the stack is found to be.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Walked {
    /// Methods innermost first, and the frame that called them.
    Frames(Vec<Frame>, Returned),
    /// The frames outside of it are not on this stack.
    InHeap,
    /// Its caller lies where the stack was not copied.
    Unread(u64),
    /// It would take more reading than a walk may do.
    Bounded,
    /// Its code is gone; so may the callee's be, which nothing has confirmed.
    Gone { callee_too: bool },
}

/// Asked for one frame after the other.
pub(in super::super) struct Walker<'read> {
    machine: &'read Machine,
    methods: &'read mut MethodReader,
    callee: Option<Callee>,
    budget: Budget,
}

/// The Java frame that was walked last.
struct Callee {
    returns_to: Returned,
    name: Option<String>,
    /// It called what it should have.
    is_confirmed: bool,
}

impl<'read> Walker<'read> {
    pub(in super::super) fn new(machine: &'read Machine, methods: &'read mut MethodReader) -> Self {
        Self::bounded(machine, methods, WALK_MAX_BYTES)
    }

    pub(super) fn bounded(
        machine: &'read Machine,
        methods: &'read mut MethodReader,
        max_bytes: usize,
    ) -> Self {
        Self {
            machine,
            methods,
            callee: None,
            budget: Budget::of(max_bytes),
        }
    }

    /// Whether `pc` lies where the JVM puts its code.
    pub(in super::super) fn has_code(&self, pc: u64) -> bool {
        self.machine.has_code(pc)
    }

    /// `read` has the stack as it was at connect.
    pub(in super::super) fn step(
        &mut self,
        at: Returned,
        read: impl FnMut(u64) -> Option<u64>,
    ) -> Walked {
        if self.budget.is_used_up() {
            return Walked::Bounded;
        }
        match self.read_step(at, read) {
            // What was not read is not known to be gone.
            Walked::Gone { .. } if self.budget.is_used_up() => Walked::Bounded,
            walked => walked,
        }
    }

    fn read_step(&mut self, at: Returned, mut read: impl FnMut(u64) -> Option<u64>) -> Walked {
        let machine = self.machine;
        let memory = WalkMemory::new(machine.memory, &self.budget);
        // Native code may have run in between.
        let callee = self.callee.take().filter(|callee| callee.returns_to == at);
        let gone = Walked::Gone {
            callee_too: callee.as_ref().is_some_and(|it| !it.is_confirmed),
        };
        let mut unread = None;
        let mut read = |address| {
            let word = read(address);
            if word.is_none() {
                unread = Some(address);
            }
            word
        };
        let (layout, heaps) = (&machine.layout, &machine.heaps);
        let stepped = step(memory, layout, heaps, at, &mut read);
        let (activation, caller) = match (stepped, unread) {
            (Some(Step::Caller(activation, caller)), _) => (activation, caller),
            (Some(Step::InHeap), _) => return Walked::InHeap,
            (None, Some(address)) => return Walked::Unread(address),
            (None, None) => return gone,
        };
        let Some(named) = machine.name(memory, self.methods, &activation) else {
            return gone;
        };
        let callee_name = callee.and_then(|callee| callee.name);
        if callee_name
            .as_ref()
            .is_some_and(|name| !named.called.may_be(name))
        {
            return gone;
        }
        self.callee = Some(Callee {
            returns_to: caller,
            name: named.callee,
            is_confirmed: callee_name.is_some() && !matches!(named.called, Called::Any),
        });
        Walked::Frames(named.frames, caller)
    }
}
