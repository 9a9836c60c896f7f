//! The intake: takes notices off the ring, looks at what they name, and tells the state.

use bytes::Bytes;

use super::{recorder::Recorder, tracer::Tracer};
use crate::{
    clock,
    decode::{Event, event, recording::Entry, socket::Socket},
    kernel::{Passes, Ring, SocketRecord, Taken},
    stacks::StackSample,
};

/// How a socket is by now, of which a notice says how it was.
enum ByNow {
    Is(SocketRecord),
    Gone,
    /// The notice is the best there is; where a map cannot be read, the next reconcile says why.
    Unknown,
}

impl Tracer {
    /// Takes over every event and stack that is there already.
    pub fn drain(&mut self) {
        self.take_all(Ring::take);
    }

    /// As [`Tracer::drain`], for who does so again and again.
    pub(super) fn drain_for_now(&mut self) {
        self.take_all(Ring::take_for_now);
    }

    fn take_all(&mut self, take: impl Fn(&mut Ring, &mut Passes<'_>) -> Taken) {
        loop {
            let now_ns = clock::boot_ns();
            // Every notice is wanted as it is told, or as it was written down.
            let wants_each = self.is_literal || self.recorder.is_some();
            let (passing, maps, state) = (&self.passing, &self.maps, &mut self.state);
            let mut passes =
                |entry: &[u8]| !wants_each && passing.passes(entry, maps, state, now_ns);
            let taken = take(&mut self.ring, &mut passes);
            self.take_notices(&taken.notices);
            if taken.is_all {
                break;
            }
        }
        self.take_stacks();
    }

    /// Takes over the stacks that came out.
    pub(super) fn take_stacks(&mut self) {
        while let Some((tag, stack)) = self.stacks.try_next() {
            self.take_stack(tag, stack);
        }
    }

    fn take_notices(&mut self, notices: &[Bytes]) {
        // None of them is younger.
        let now_ns = clock::boot_ns();
        for notice in notices {
            match Event::decode(notice) {
                Ok(event) => self.take_notice(notice, event, now_ns),
                // The object is embedded in this very binary: it can only be a bug of ours.
                Err(error) => debug_assert!(false, "{error}"),
            }
        }
        self.state.count_passed(now_ns);
    }

    fn take_notice(&mut self, notice: &Bytes, event: Event, now_ns: u64) {
        let by_now = match &event {
            // It began and ended before anyone looked.
            Event::Destroyed { socket, .. } if self.state.table.get(socket.id).is_none() => return,
            Event::Connect { socket, .. } | Event::Changed { socket } if !self.is_literal => {
                self.by_now(socket)
            }
            _ => ByNow::Unknown,
        };
        match by_now {
            ByNow::Unknown => self.tell(notice, event),
            ByNow::Is(record) => self.take_change(notice, event, &record, now_ns),
            ByNow::Gone => self.take_gone(notice, event, now_ns),
        }
    }

    /// A notice says how a socket was; how it is now, the kernel's maps say.
    fn take_change(&mut self, notice: &Bytes, event: Event, record: &SocketRecord, now_ns: u64) {
        let Some(id) = event.socket().map(|socket| socket.id) else {
            return;
        };
        if matches!(event, Event::Connect { .. }) {
            self.tell(notice, event);
        }
        self.write(|| event::renewed(notice, Some(record), now_ns));
        let socket = Socket::from_record(id.0, record);
        self.apply(Event::Changed { socket });
    }

    fn by_now(&self, socket: &Socket) -> ByNow {
        let id = socket.id.0;
        let opened_ns = socket.opened_ns;
        if opened_ns.is_some_and(|opened_ns| self.maps.has_ended(id, opened_ns)) {
            return ByNow::Gone;
        }
        match self.maps.socket(id) {
            Ok(Some(record)) if opened_ns.unwrap_or(0) == record.opened_ns => ByNow::Is(record),
            // Its address may be another's by now, of whom another notice tells.
            Ok(_) => ByNow::Gone,
            Err(_) => ByNow::Unknown,
        }
    }

    /// The socket ended before anyone looked.
    fn take_gone(&mut self, notice: &Bytes, event: Event, now_ns: u64) {
        let Some(socket) = event.socket() else {
            return;
        };
        let known = self.state.table.get(socket.id);
        let known = known.map(|entry| entry.opened_ns());
        let is_known = known == Some(socket.opened_ns);
        if is_known {
            self.write(|| event::renewed(notice, None, now_ns));
        }
        // A life before it at its address is over, too: that this one began is all that tells so.
        if known.is_some_and(|opened_ns| opened_ns <= socket.opened_ns) {
            self.apply(Event::Destroyed {
                socket: socket.clone(),
                time_ns: now_ns,
            });
        }
        if is_known {
            return;
        }
        let opener = socket.opener.as_ref().filter(|_| !socket.own);
        self.state.pass(socket.end, opener, now_ns);
        self.write(|| Some(notice.clone()));
        self.write(|| event::renewed(notice, None, now_ns));
        self.record(Recorder::processes);
        if let Event::Connect {
            socket,
            sample: Some(sample),
        } = event
            && self.passing.take(now_ns)
        {
            self.ask_for_stack(&socket, sample);
        }
    }

    fn tell(&mut self, notice: &Bytes, event: Event) {
        self.write(|| Some(notice.clone()));
        self.apply(event);
    }

    /// Writes a notice down where a recording is made.
    fn write(&mut self, notice: impl FnOnce() -> Option<Bytes>) {
        self.record(|recorder, _| {
            if let Some(notice) = notice() {
                recorder.write(&Entry::Event(notice));
            }
        });
    }

    fn apply(&mut self, event: Event) {
        self.state.tell(&event);
        self.record(Recorder::processes);
        match event {
            Event::Connect {
                socket,
                sample: Some(sample),
            } => self.ask_for_stack(&socket, sample),
            Event::Exec { process, .. } => {
                self.stacks.forget(process);
                self.stacks.look(process);
            }
            Event::Program { process } => self.stacks.look(process),
            Event::Exit { process, .. } => self.stacks.forget(process),
            Event::Connect { sample: None, .. }
            | Event::Changed { .. }
            | Event::Destroyed { .. }
            | Event::Fork { .. } => {}
        }
    }

    fn ask_for_stack(&mut self, socket: &Socket, sample: StackSample) {
        let Some(opener) = socket.opener.as_ref().filter(|_| !socket.own) else {
            return;
        };
        let tag = (socket.id, socket.opened_ns);
        if !self.stacks.ask(tag, opener.process, sample) {
            self.state.take_queue_full(socket.id);
            self.record(|recorder, _| recorder.write(&Entry::QueueFull(socket.id.0)));
        }
    }
}
