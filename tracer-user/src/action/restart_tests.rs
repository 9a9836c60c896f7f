//! Tests of the restart against a systemd of our own making, over a socket pair.

use std::sync::{Arc, Mutex};

use std::os::unix::net::UnixStream;
use zbus::object_server::SignalEmitter;
use zbus::{Guid, fdo, interface};

use super::*;

/// What the fake systemd does with a restart.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Ends(&'static str),
    Refuses,
    Nothing,
}

struct Manager {
    does: Does,
    restarted: Arc<Mutex<Vec<String>>>,
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn subscribe(&self) {}

    async fn restart_unit(
        &self,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        unit: String,
        mode: String,
    ) -> fdo::Result<OwnedObjectPath> {
        assert_eq!(mode, "replace");
        self.restarted
            .lock()
            .expect("no panic before")
            .push(unit.clone());
        let path = |id: u32| {
            OwnedObjectPath::try_from(format!("/org/freedesktop/systemd1/job/{id}"))
                .expect("a path")
        };
        match self.does {
            Does::Refuses => return Err(fdo::Error::Failed(format!("Unit {unit} not found."))),
            Does::Nothing => {}
            Does::Ends(result) => {
                // Another unit's job first, and all before the answer: a fast unit.
                Self::job_removed(&emitter, 1, path(1), "x.service", "failed").await?;
                Self::job_removed(&emitter, 2, path(2), &unit, result).await?;
            }
        }
        Ok(path(2))
    }

    fn load_unit(&self, _unit: String) -> OwnedObjectPath {
        OwnedObjectPath::try_from("/org/freedesktop/systemd1/unit/a").expect("a path")
    }

    #[zbus(name = "GetUnitByPID")]
    fn get_unit_by_pid(&self, pid: u32) -> fdo::Result<OwnedObjectPath> {
        match pid {
            7 => Ok(self.load_unit(String::new())),
            _ => Err(fdo::Error::Failed(format!(
                "PID {pid} does not belong to any loaded unit."
            ))),
        }
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

struct Unit;

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl Unit {
    #[zbus(property)]
    fn id(&self) -> String {
        "a.service".to_owned()
    }

    #[zbus(property)]
    fn active_state(&self) -> String {
        "failed".to_owned()
    }

    #[zbus(property)]
    fn sub_state(&self) -> String {
        "failed".to_owned()
    }
}

struct Service;

#[interface(name = "org.freedesktop.systemd1.Service")]
impl Service {
    #[zbus(property)]
    fn result(&self) -> String {
        "start-limit-hit".to_owned()
    }
}

struct Fake {
    systemd: Systemd,
    restarted: Arc<Mutex<Vec<String>>>,
    _server: Connection,
}

async fn fake(does: Does) -> Fake {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let restarted = Arc::new(Mutex::new(Vec::new()));
    let manager = Manager {
        does,
        restarted: Arc::clone(&restarted),
    };
    let unit = "/org/freedesktop/systemd1/unit/a";
    let server = connection::Builder::unix_stream(theirs)
        .server(Guid::generate())
        .p2p()
        .serve_at(OBJECT, manager)
        .serve_at(unit, Unit)
        .serve_at(unit, Service)
        .build();
    let client = connection::Builder::unix_stream(ours).p2p().build();
    let (server, client) = tokio::join!(server, client);
    Fake {
        systemd: Systemd::over(client.expect("a client")),
        restarted,
        _server: server.expect("a server"),
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_restart_is_done_when_its_job_is() {
    let fake = fake(Does::Ends("done")).await;
    assert_eq!(
        fake.systemd.restart("a.service", PATIENCE).await,
        Outcome::Done
    );
    assert_eq!(
        *fake.restarted.lock().expect("no panic before"),
        ["a.service"]
    );
}

#[tokio::test]
async fn a_unit_that_does_not_come_back_is_down_with_systemds_reason() {
    let fake = fake(Does::Ends("failed")).await;
    let outcome = fake.systemd.restart("a.service", PATIENCE).await;
    let error = "systemd's job for a.service ended with failed (failed failed, start-limit-hit)";
    assert_eq!(
        outcome,
        Outcome::Down {
            error: error.to_owned()
        }
    );
}

#[tokio::test]
async fn a_refusal_is_systemds_own_words() {
    let fake = fake(Does::Refuses).await;
    let Outcome::NotBegun { error } = fake.systemd.restart("a.service", PATIENCE).await else {
        panic!("begun");
    };
    assert!(
        error.starts_with("systemd refused to restart a.service: "),
        "{error}"
    );
    assert!(error.contains("Unit a.service not found."), "{error}");
}

#[tokio::test]
async fn a_job_that_does_not_end_is_uncertain() {
    let fake = fake(Does::Nothing).await;
    let outcome = fake
        .systemd
        .restart("a.service", Duration::from_millis(100))
        .await;
    assert!(matches!(outcome, Outcome::Uncertain { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_process_has_its_unit() {
    let fake = fake(Does::Nothing).await;
    assert_eq!(fake.systemd.unit_of(7).await.expect("a unit"), "a.service");
    let error = fake
        .systemd
        .unit_of(8)
        .await
        .expect_err("no unit")
        .to_string();
    assert!(
        error.starts_with("systemd refused to find the unit of process 8: "),
        "{error}"
    );
}

#[tokio::test]
async fn without_a_bus_the_error_says_so() {
    let nowhere = connection::Builder::address("unix:path=/nonexistent/bus");
    let bus = build(nowhere).await.expect("in time").expect_err("no bus");
    let nowhere = connection::Builder::address("unix:path=/nonexistent/private").p2p();
    let direct = build(nowhere)
        .await
        .expect("in time")
        .expect_err("no socket");
    let text = RestartError::NoBus { bus, direct }.to_string();
    assert!(text.starts_with("failed to reach systemd: "), "{text}");
    assert!(text.contains("No such file"), "{text}");
}
