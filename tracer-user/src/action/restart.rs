//! A restart asks systemd over D-Bus and waits for what its job came to.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::timeout;
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, OwnedVariant, connection};

use crate::policy::decision::Outcome;

const SERVICE: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE_UNIT: &str = "org.freedesktop.systemd1.Service";
/// systemd's own socket, for root: it is there when the bus is not.
const PRIVATE: &str = "unix:path=/run/systemd/private";
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    #[error("failed to reach systemd: {bus}; directly: {direct}; is systemd running here?")]
    NoBus {
        bus: zbus::Error,
        direct: zbus::Error,
    },
    #[error("failed to reach systemd: no answer within {CALL_TIMEOUT:?}")]
    Late,
    #[error("systemd refused to {verb}: {source}")]
    Refused { verb: String, source: zbus::Error },
}

/// How a unit is doing, as systemd says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitStatus {
    /// "active", "failed", "inactive", "activating"...
    pub active: String,
    pub sub: String,
    /// "success", "exit-code", "start-limit-hit"...; None for what is no service.
    pub result: Option<String>,
}

pub struct Systemd {
    connection: Connection,
    /// Over its own socket systemd has no name, and signs its signals with none.
    on_bus: bool,
}

impl Systemd {
    /// Over the system bus; over systemd's own socket where there is none.
    pub async fn connect() -> Result<Self, RestartError> {
        let bus = match build(connection::Builder::system()).await? {
            Ok(connection) => {
                return Ok(Self {
                    connection,
                    on_bus: true,
                });
            }
            Err(error) => error,
        };
        match build(connection::Builder::address(PRIVATE).p2p()).await? {
            Ok(connection) => Ok(Self {
                connection,
                on_bus: false,
            }),
            Err(direct) => Err(RestartError::NoBus { bus, direct }),
        }
    }

    #[cfg(test)]
    fn over(connection: Connection) -> Self {
        Self {
            connection,
            on_bus: false,
        }
    }

    /// Restarts a unit and waits for the end of systemd's job, at most `wait`.
    pub async fn restart(&self, unit: &str, wait: Duration) -> Outcome {
        let mut removed = match self.jobs_removed().await {
            Ok(removed) => removed,
            Err(error) => {
                return Outcome::NotBegun {
                    error: error.to_string(),
                };
            }
        };
        let verb = format!("restart {unit}");
        let job: OwnedObjectPath = match self
            .call(OBJECT, MANAGER, "RestartUnit", &(unit, "replace"), &verb)
            .await
        {
            Ok(job) => job,
            // No answer is not a no: the job may be queued.
            Err(error) if is_late(&error) => {
                return Outcome::Uncertain {
                    error: error.to_string(),
                };
            }
            Err(error) => {
                return Outcome::NotBegun {
                    error: error.to_string(),
                };
            }
        };
        let result = timeout(wait, async {
            while let Some(message) = removed.next().await {
                let body = message.ok().map(|message| message.body());
                let parts = body.and_then(|body| {
                    body.deserialize::<(u32, OwnedObjectPath, String, String)>()
                        .ok()
                });
                if let Some((_, path, _, result)) = parts
                    && path == job
                {
                    return Some(result);
                }
            }
            None
        });
        match result.await {
            Ok(Some(result)) => self.judge(unit, &result).await,
            Ok(None) => Outcome::Uncertain {
                error: format!("the bus was lost while {unit} restarted"),
            },
            Err(_) => Outcome::Uncertain {
                error: format!("{unit} did not restart within {wait:?}; systemd is still at it"),
            },
        }
    }

    async fn judge(&self, unit: &str, result: &str) -> Outcome {
        let status = self.status(unit).await.ok();
        let state = status.as_ref().map_or_else(String::new, |it| {
            let result = it.result.as_deref().filter(|result| *result != "success");
            let cause = result
                .map(|result| format!(", {result}"))
                .unwrap_or_default();
            format!(" ({} {}{cause})", it.active, it.sub)
        });
        match result {
            "done" | "skipped" => Outcome::Done,
            // Another job took its place: someone else restarts or stops it.
            "canceled" | "timeout" => Outcome::Uncertain {
                error: format!("systemd's job for {unit} ended with {result}{state}"),
            },
            _ => Outcome::Down {
                error: format!("systemd's job for {unit} ended with {result}{state}"),
            },
        }
    }

    pub async fn status(&self, unit: &str) -> Result<UnitStatus, RestartError> {
        let verb = format!("find {unit}");
        let path: OwnedObjectPath = self
            .call(OBJECT, MANAGER, "LoadUnit", &(unit,), &verb)
            .await?;
        let result = self.property(&path, SERVICE_UNIT, "Result").await.ok();
        Ok(UnitStatus {
            active: self.property(&path, UNIT, "ActiveState").await?,
            sub: self.property(&path, UNIT, "SubState").await?,
            result,
        })
    }

    /// The unit a process belongs to, as systemd sees it.
    pub async fn unit_of(&self, pid: u32) -> Result<String, RestartError> {
        let verb = format!("find the unit of process {pid}");
        let path: OwnedObjectPath = self
            .call(OBJECT, MANAGER, "GetUnitByPID", &(pid,), &verb)
            .await?;
        self.property(&path, UNIT, "Id").await
    }

    async fn jobs_removed(&self) -> Result<MessageStream, RestartError> {
        let verb = "tell of its jobs".to_owned();
        let refused = |source| RestartError::Refused {
            verb: verb.clone(),
            source,
        };
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .interface(MANAGER)
            .member("JobRemoved");
        let rule = if self.on_bus {
            rule.sender(SERVICE)
        } else {
            rule
        };
        let rule = rule.build().map_err(refused)?;
        // Listening before asking: a fast unit's job is gone before the answer is read.
        let stream = MessageStream::for_match_rule(rule, &self.connection, None).await;
        let stream = stream.map_err(refused)?;
        let _: () = self.call(OBJECT, MANAGER, "Subscribe", &(), &verb).await?;
        Ok(stream)
    }

    async fn property(
        &self,
        path: &OwnedObjectPath,
        interface: &str,
        name: &str,
    ) -> Result<String, RestartError> {
        let verb = format!("say {name}");
        let value: OwnedVariant = self
            .call(
                path.as_str(),
                "org.freedesktop.DBus.Properties",
                "Get",
                &(interface, name),
                &verb,
            )
            .await?;
        String::try_from(value).map_err(|error| RestartError::Refused {
            verb,
            source: error,
        })
    }

    async fn call<B, R>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
        verb: &str,
    ) -> Result<R, RestartError>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
        R: serde::de::DeserializeOwned + zbus::zvariant::Type,
    {
        let refused = |source| RestartError::Refused {
            verb: verb.to_owned(),
            source,
        };
        let answer = self
            .connection
            .call_method(Some(SERVICE), path, Some(interface), method, body)
            .await
            .map_err(refused)?;
        answer.body().deserialize().map_err(refused)
    }
}

type Built = Result<Connection, zbus::Error>;

async fn build(builder: connection::Builder<'_>) -> Result<Built, RestartError> {
    let building = builder.method_timeout(CALL_TIMEOUT).build();
    timeout(CALL_TIMEOUT, building)
        .await
        .map_err(|_| RestartError::Late)
}

fn is_late(error: &RestartError) -> bool {
    match error {
        RestartError::Refused {
            source: zbus::Error::InputOutput(cause),
            ..
        } => cause.kind() == std::io::ErrorKind::TimedOut,
        RestartError::Late => true,
        _ => false,
    }
}

#[cfg(test)]
#[path = "restart_tests.rs"]
mod tests;
