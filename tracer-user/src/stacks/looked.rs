//! What a look at a process found of the interpreter, or the virtual machine, that it may run.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Looked<Found> {
    Found(Found),
    /// One that connleak does not know, and why.
    Refused(String),
    /// The process ended.
    Ended,
    /// An interpreter is mapped and not up yet.
    NotYet,
    /// None is mapped.
    Nothing,
}

impl<Found> Looked<Found> {
    pub(super) fn map<Other>(self, found: impl FnOnce(Found) -> Other) -> Looked<Other> {
        match self {
            Self::Found(it) => Looked::Found(found(it)),
            Self::Refused(cause) => Looked::Refused(cause),
            Self::Ended => Looked::Ended,
            Self::NotYet => Looked::NotYet,
            Self::Nothing => Looked::Nothing,
        }
    }
}
