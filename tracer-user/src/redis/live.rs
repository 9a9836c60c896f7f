//! Tests against a real redis-server that is stopped, killed, locked and brought back.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::clients::ClientList;
use super::connection::{CLIENT_NAME, Connection};
use super::endpoint::Endpoint;
use super::health::{Answer, HealthChange};
use super::probe::{Prober, RedisReport};
use crate::config::Config;

/// How long a condition may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    directory: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub(crate) fn start(settings: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("temp directory");
        let port = free_port();
        let child = Self::spawn(port, &directory, settings);
        Self {
            child,
            port,
            directory,
        }
    }

    fn spawn(port: u16, directory: &TempDir, settings: &[&str]) -> Child {
        let mut command = Command::new("redis-server");
        let port = port.to_string();
        command.args(["--bind", "127.0.0.1", "--save", "", "--port"]);
        // A TLS port alone: the plain one is off.
        command.arg(if settings.contains(&"--tls-port") {
            "0"
        } else {
            &port
        });
        command
            .arg("--dir")
            .arg(directory.path())
            .arg("--unixsocket")
            .arg("redis.sock");
        let settings = settings
            .iter()
            .map(|text| if *text == "PORT" { &port } else { *text });
        command
            .args(settings)
            .stdout(Stdio::null())
            .stdin(Stdio::null());
        command
            .spawn()
            .expect("redis-server; apt-get install redis-server")
    }

    fn stop(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("waited for");
    }

    fn again(&mut self, settings: &[&str]) {
        self.child = Self::spawn(self.port, &self.directory, settings);
    }

    fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a pid");
        // SAFETY: kill takes no pointers; the pid is our own unreaped child.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0);
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config::default();
        config.redis.url = format!("redis://127.0.0.1:{}", self.port);
        config.redis.timeout = Duration::from_millis(500);
        config.redis.clients_interval = Duration::from_secs(1);
        config.redis.info_interval = Duration::from_secs(1);
        config.probe.0[0].interval = Duration::from_millis(100);
        config
    }

    pub(crate) async fn connect(&self) -> Connection {
        let endpoint = Endpoint::new(&self.config().redis).expect("an endpoint");
        let opening = async {
            loop {
                match Connection::open(&endpoint).await {
                    Ok(connection) => return connection,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        timeout(PATIENCE, opening)
            .await
            .expect("redis-server answers")
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

struct Watched {
    reports: watch::Receiver<RedisReport>,
    changes: mpsc::UnboundedReceiver<HealthChange>,
}

impl Watched {
    fn start(config: &Config) -> Self {
        let (report, reports) = watch::channel(RedisReport::default());
        let (change, changes) = mpsc::unbounded_channel();
        tokio::spawn(Prober::new(config).expect("a prober").run(report, change));
        Self { reports, changes }
    }

    async fn until(&self, holds: impl FnMut(&RedisReport) -> bool) -> RedisReport {
        let mut reports = self.reports.clone();
        let waited = timeout(PATIENCE, reports.wait_for(holds)).await;
        waited
            .unwrap_or_else(|_| panic!("not reported: {:?}", self.reports.borrow()))
            .expect("the prober runs")
            .clone()
    }

    async fn answer(&self, answer: Answer) -> RedisReport {
        self.until(|report| report.answer == answer).await
    }

    fn said(&mut self) -> Vec<(Answer, Answer)> {
        let mut said = Vec::new();
        while let Ok(change) = self.changes.try_recv() {
            said.push((change.from, change.to));
        }
        said
    }
}

#[tokio::test]
async fn a_redis_that_is_down_hung_and_back_is_told_once_each() {
    let mut server = Server::start(&[]);
    server.connect().await;
    let mut watched = Watched::start(&server.config());
    let report = watched.until(|report| report.clients.is_some()).await;
    assert_eq!(report.answer, Answer::Up);
    assert!(report.probes[0].windows[0].expect("samples").samples >= 1);
    let info = report.server.expect("info");
    assert!(
        info.max_clients.is_some() && info.rejected_connections == Some(0),
        "{info:?}"
    );

    server.signal(libc::SIGSTOP);
    let report = watched.answer(Answer::Hung).await;
    assert_eq!(report.own, None);
    server.signal(libc::SIGCONT);
    watched.answer(Answer::Up).await;

    server.stop();
    let report = watched.answer(Answer::Down).await;
    assert!(report.cause.is_some());
    server.again(&[]);
    watched.answer(Answer::Up).await;
    let steps = [
        Answer::Unknown,
        Answer::Up,
        Answer::Hung,
        Answer::Up,
        Answer::Down,
        Answer::Up,
    ];
    let expected: Vec<_> = steps.windows(2).map(|pair| (pair[0], pair[1])).collect();
    assert_eq!(watched.said(), expected);
}

#[tokio::test]
async fn a_changed_password_is_denied_until_the_file_has_it() {
    let mut server = Server::start(&["--requirepass", "one"]);
    let file = tempfile::NamedTempFile::new().expect("temp file");
    fs::write(file.path(), "one\n").expect("written");
    let mut config = server.config();
    config.redis.password_file = Some(file.path().to_owned());
    let watched = Watched::start(&config);
    watched.answer(Answer::Up).await;

    server.stop();
    server.again(&["--requirepass", "two"]);
    let report = watched.answer(Answer::Denied).await;
    let cause = report.cause.expect("a cause");
    assert!(!cause.contains("one") && !cause.contains("two"), "{cause}");
    fs::write(file.path(), "two").expect("written");
    watched.answer(Answer::Up).await;
}

#[tokio::test]
async fn an_acl_user_with_few_rights_still_measures_latency() {
    let server = Server::start(&[
        "--user", "default", "off", "--user", "watcher", "on", ">pw", "+ping",
    ]);
    let file = tempfile::NamedTempFile::new().expect("temp file");
    fs::write(file.path(), "pw").expect("written");
    let mut config = server.config();
    config.redis.username = Some("watcher".to_owned());
    config.redis.password_file = Some(file.path().to_owned());
    let watched = Watched::start(&config);
    let report = watched
        .until(|report| report.probes.iter().any(|it| it.windows[0].is_some()))
        .await;
    assert_eq!(report.answer, Answer::Up);
    assert!(report.server.is_none() && report.clients.is_none());
}

#[tokio::test]
async fn a_full_redis_says_so_and_is_not_down() {
    let server = Server::start(&["--maxclients", "2"]);
    let first = server.connect().await;
    let second = server.connect().await;
    let watched = Watched::start(&server.config());
    watched.answer(Answer::Full).await;
    drop((first, second));
    watched.answer(Answer::Up).await;
}

#[tokio::test]
async fn our_own_connection_is_known_by_name_and_address() {
    let server = Server::start(&[]);
    let mut connection = server.connect().await;
    let (local, remote) = connection.ends().expect("a TCP connection");
    assert_eq!(remote.port(), server.port);
    let mut command = redis::cmd("CLIENT");
    command.arg("LIST");
    let text: String = connection.query(&command).await.expect("a list");
    let list = ClientList::parse(&text);
    let ours = list.find(local, remote).expect("our own line");
    assert!(ours.is_ours());
    assert_eq!(ours.name.as_deref(), Some(CLIENT_NAME));
    assert_eq!(
        list.find(remote, local).map(|client| client.id),
        Some(ours.id)
    );
}

#[tokio::test]
async fn a_unix_socket_serves_as_well() {
    let server = Server::start(&[]);
    server.connect().await;
    let mut config = server.config();
    config.redis.url = format!("unix://{}", server.socket().display());
    let watched = Watched::start(&config);
    let report = watched.answer(Answer::Up).await;
    assert_eq!(report.own, None);
}

#[tokio::test]
async fn a_probe_that_redis_dislikes_is_its_own_error() {
    let server = Server::start(&[]);
    let mut connection = server.connect().await;
    let mut command = redis::cmd("SET");
    command.arg("text").arg("1");
    connection.query::<()>(&command).await.expect("set");
    let mut config = server.config();
    let mut probe = config.probe.0[0].clone();
    probe.name = "wrong".to_owned();
    probe.command = ["XRANGE", "text", "{now-5s}", "{now}"]
        .map(str::to_owned)
        .to_vec();
    config.probe.0.push(probe);
    let watched = Watched::start(&config);
    let report = watched
        .until(|it| it.probes.iter().any(|probe| probe.error.is_some()))
        .await;
    assert_eq!(report.answer, Answer::Up);
    let cause = report.probes[1].error.as_deref().unwrap_or("");
    assert!(cause.contains("WRONGTYPE"), "{cause}");
    let rates = |it: &RedisReport| {
        it.rates
            .error_replies_per_minute
            .is_some_and(|rate| rate > 0.0)
    };
    watched.until(rates).await;
}

#[tokio::test]
async fn tls_is_spoken_and_a_foreign_authority_refused() {
    let directory = tempfile::tempdir().expect("temp directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (key, cert, other) = (path("key.pem"), path("cert.pem"), path("other.pem"));
    for (key, cert) in [(&key, &cert), (&path("other-key.pem"), &other)] {
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ])
            .args(["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-keyout", key, "-out", cert])
            .stderr(Stdio::null())
            .status()
            .expect("openssl; apt-get install openssl");
        assert!(made.success());
    }
    let server = Server::start(&[
        "--tls-port",
        "PORT",
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &cert,
        "--tls-auth-clients",
        "no",
    ]);
    let mut config = server.config();
    config.redis.url = format!("rediss://127.0.0.1:{}", server.port);
    config.redis.ca_file = Some(cert.into());
    let watched = Watched::start(&config);
    let report = watched.answer(Answer::Up).await;
    assert!(report.own.is_some());

    config.redis.ca_file = Some(other.into());
    let watched = Watched::start(&config);
    let report = watched.answer(Answer::Down).await;
    assert!(
        report
            .cause
            .as_deref()
            .is_some_and(|cause| cause.contains("certificate")),
        "{report:?}"
    );
}

#[tokio::test]
async fn a_sentinel_names_the_master() {
    let server = Server::start(&[]);
    server.connect().await;
    let directory = tempfile::tempdir().expect("temp directory");
    let file = directory.path().join("sentinel.conf");
    let port = free_port();
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor mymaster 127.0.0.1 {} 1\n",
        directory.path().display(),
        server.port
    );
    fs::write(&file, text).expect("written");
    let child = Command::new("redis-server")
        .arg(&file)
        .arg("--sentinel")
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server");
    let _sentinel = Server {
        child,
        port,
        directory,
    };
    let mut config = server.config();
    config.redis.url = "redis://127.0.0.1:1".to_owned();
    config.redis.sentinels = vec!["127.0.0.1:1".to_owned(), format!("127.0.0.1:{port}")];
    config.redis.sentinel_master = Some("mymaster".to_owned());
    let watched = Watched::start(&config);
    let report = watched.answer(Answer::Up).await;
    assert_eq!(
        report.own.map(|(_, remote)| remote.port()),
        Some(server.port)
    );
}
