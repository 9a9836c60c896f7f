//! Health says how Redis answers us, and each change of that once.

use redis::{ErrorKind, RedisError};
use serde::{Deserialize, Serialize};

use super::connection::ConnectionError;
use crate::policy::observation::RedisState;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    #[default]
    Unknown,
    Up,
    Down,
    /// It takes connections and does not answer.
    Hung,
    /// It answers, but wants another password or forbids the command.
    Denied,
    /// It has as many clients as it may have.
    Full,
    /// It is loading its data.
    Loading,
}

impl Answer {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
            Self::Hung => "hung",
            Self::Denied => "denied",
            Self::Full => "full",
            Self::Loading => "loading",
        }
    }
}

impl From<Answer> for RedisState {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Unknown => Self::Unknown,
            Answer::Up => Self::Up,
            Answer::Down | Answer::Loading => Self::Down,
            Answer::Hung => Self::Hung,
            // A full Redis is what a leak makes of it: restarting the leaker is the cure.
            Answer::Denied | Answer::Full => Self::Denied,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthChange {
    pub from: Answer,
    pub to: Answer,
    /// The error that changed it; None when it is up.
    pub cause: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Health {
    answer: Answer,
    cause: Option<String>,
}

impl Health {
    pub fn answer(&self) -> Answer {
        self.answer
    }

    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    pub fn answered(&mut self) -> Option<HealthChange> {
        self.set(Answer::Up, None)
    }

    pub fn failed(&mut self, error: &ConnectionError) -> Option<HealthChange> {
        self.set(classify(error), Some(error.to_string()))
    }

    fn set(&mut self, to: Answer, cause: Option<String>) -> Option<HealthChange> {
        let from = std::mem::replace(&mut self.answer, to);
        self.cause.clone_from(&cause);
        (from != to).then_some(HealthChange { from, to, cause })
    }
}

fn classify(error: &ConnectionError) -> Answer {
    match error {
        ConnectionError::Silent { .. } | ConnectionError::NoAnswer { .. } => Answer::Hung,
        ConnectionError::Secret(_) => Answer::Denied,
        ConnectionError::Setup { source, .. } => classify_reply(source),
        ConnectionError::Command(source) => classify_reply(source),
        ConnectionError::Connect { .. }
        | ConnectionError::Unreachable { .. }
        | ConnectionError::Tls(_)
        | ConnectionError::Sentinel { .. } => Answer::Down,
    }
}

fn classify_reply(error: &RedisError) -> Answer {
    let text = error.to_string();
    let code = error.code().unwrap_or("");
    if error.kind() == ErrorKind::AuthenticationFailed
        || ["NOAUTH", "WRONGPASS", "NOPERM", "DENIED"].contains(&code)
    {
        Answer::Denied
    } else if text.contains("max number of clients") {
        Answer::Full
    } else if code == "LOADING" || code == "BUSYLOADING" || text.contains("LOADING") {
        Answer::Loading
    } else if error.is_timeout() {
        Answer::Hung
    } else {
        Answer::Down
    }
}
